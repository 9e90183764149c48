"""The HTTP connections to a service, through the proxy and with the certificates that the environment names.

All HTTP of this worker but that for access tokens goes over these.
"""

from __future__ import annotations

import os
import ssl
from typing import Any
from urllib.parse import unquote

import certifi
from requests.utils import get_environ_proxies, select_proxy
from urllib3 import PoolManager, ProxyManager, make_headers
from urllib3.util import parse_url

from worker_chart_export.stoppable_urllib3 import make_stoppable

#: A file or a folder of certificates; the first that is set counts.
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def open_connections(url: str, *, kept: int) -> PoolManager:
    """Connections to `url`, opened when they are needed, whose calls can be stopped; so many are kept.

    The environment is looked at now: for each call it would take a fifth of a step's processor time.
    `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` and their like count, and what `CERTIFICATES` names.

    Raises:
        ValueError: The proxy is none that can be used.
        OSError: The certificates can't be read.
    """
    proxy: str | None = select_proxy(url, get_environ_proxies(url))
    settings: dict[str, Any] = {"maxsize": kept}
    if "https:" in f"{url} {proxy}".lower():
        settings["ssl_context"] = _trusting()
    manager = PoolManager(**settings) if proxy is None else _behind(proxy, **settings)
    make_stoppable(manager)
    return manager


def _behind(proxy: str, **settings: Any) -> ProxyManager:
    auth = parse_url(proxy).auth
    headers = make_headers(proxy_basic_auth=unquote(auth)) if auth else None
    return ProxyManager(proxy, proxy_headers=headers, **settings)


def _trusting() -> ssl.SSLContext:
    """By itself it trusts Mozilla's certificates: slim images have none of their own."""
    place = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), certifi.where())
    if os.path.isdir(place):  # noqa: PTH112 - a path of the environment, handed on as it is
        return ssl.create_default_context(capath=place)
    return ssl.create_default_context(cafile=place)
