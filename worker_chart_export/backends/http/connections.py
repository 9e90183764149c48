"""The HTTP connections to a service, through the proxy and with the certificates that the environment names.

All HTTP of this worker but that for access tokens goes over these.
"""

from __future__ import annotations

import os
import ssl
from typing import Any
from urllib.parse import unquote

import certifi
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy
from urllib3 import PoolManager, ProxyManager, make_headers
from urllib3.util import parse_url

from worker_chart_export.backends.http.stoppable_urllib3 import make_cancellable

#: Files or folders of certificates; the first that is set counts, before `SSL_CERT_DIR`.
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def open_connections(url: str, *, kept: int) -> PoolManager:
    """Connections to `url`, opened when they are needed, whose calls can be stopped; so many are kept.

    The environment is looked at now: for each call it would take a fifth of a step's processor time.
    `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` and their like count, and what `CERTIFICATES` names.

    Raises:
        ValueError: The proxy is none that can be used. It is not quoted: there may be a password in it.
        OSError: The certificates can't be read.
    """
    proxy: str | None = select_proxy(url, get_environ_proxies(url))
    settings: dict[str, Any] = {"maxsize": kept}
    if "https:" in f"{url} {proxy}".lower():
        settings["ssl_context"] = _trusting()
    manager = PoolManager(**settings) if proxy is None else _behind(proxy, **settings)
    make_cancellable(manager)
    return manager


def _behind(proxy: str, **settings: Any) -> ProxyManager:
    try:
        place = parse_url(prepend_scheme_if_needed(proxy, "http"))  # type: ignore[no-untyped-call]
        headers = make_headers(proxy_basic_auth=unquote(place.auth)) if place.auth else None
        return ProxyManager(
            place._replace(auth=None).url,
            proxy_headers=headers,
            proxy_ssl_context=settings.get("ssl_context"),
            **settings,
        )
    except ValueError:  # of whatever kind: they quote what they were given
        raise ValueError("the environment's proxy can't be used") from None


def _trusting() -> ssl.SSLContext:
    """By itself it trusts Mozilla's certificates: slim images have none."""
    place = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    folders = os.environ.get("SSL_CERT_DIR") or None
    if place is None and folders is None:
        place = certifi.where()
    if place is not None and os.path.isdir(place):  # noqa: PTH112 - a path of the environment, handed on as it is
        place, folders = None, place
    return ssl.create_default_context(cafile=place, capath=folders)
