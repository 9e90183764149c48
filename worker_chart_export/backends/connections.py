"""Open HTTP connections to a service, directly or through the proxy of the environment."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import certifi
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy
from urllib3 import PoolManager, ProxyManager, make_headers
from urllib3.util import parse_url

from worker_chart_export.backends.http import POOLS

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

#: Variables that name a file or folder of certificates. The first that is set is used, before `SSL_CERT_DIR`.
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def open_connections(url: str, *, kept: int) -> PoolManager:
    """Create a pool of cancellable connections to `url`. It keeps up to `kept` connections open.

    The environment is read once, here: to read it for each call takes a fifth of a step's processor time.
    The variables are `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` and their like, and those of `CERTIFICATES`.

    Raises:
        ValueError: The proxy can't be used. The error does not quote it: it may hold a password.
        OSError: The certificates can't be read.
    """
    proxy = proxy_for(url)
    settings: dict[str, Any] = {"maxsize": kept}
    if "https:" in f"{url} {proxy}".lower():
        settings["ssl_context"] = _ssl_context()
    if proxy is None:
        return _DirectConnections(url, **settings)
    manager = _proxy_manager(proxy, **settings)
    manager.pool_classes_by_scheme = POOLS
    return manager


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for `url`, as `requests` finds it; None = direct."""
    proxy: str | None = select_proxy(url, get_environ_proxies(url))
    return proxy or None


def _proxy_manager(proxy: str, **settings: Any) -> ProxyManager:
    try:
        url = parse_url(prepend_scheme_if_needed(proxy, "http"))  # type: ignore[no-untyped-call]
        headers = make_headers(proxy_basic_auth=unquote(url.auth)) if url.auth else None
        return ProxyManager(
            url._replace(auth=None).url,
            proxy_headers=headers,
            proxy_ssl_context=settings.get("ssl_context"),
            **settings,
        )
    except ValueError:  # each such error quotes the proxy
        raise ValueError("the environment's proxy can't be used") from None


def _ssl_context() -> ssl.SSLContext:
    """Trust the environment's certificates, or Mozilla's: slim images have none of their own."""
    path = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    folders = os.environ.get("SSL_CERT_DIR") or None
    if path is None and folders is None:
        path = certifi.where()
    if path is not None and os.path.isdir(path):  # noqa: PTH112 - a path of the environment, passed on unchanged
        path, folders = None, path
    return ssl.create_default_context(cafile=path, capath=folders)


class _DirectConnections(PoolManager):
    """Connections to one service. Its URL is parsed once: for each call that takes a seventh of its time.

    Args:
        url: The service. Calls to others are made too, but not faster.
        settings: As `PoolManager`.
    """

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.pool_classes_by_scheme = POOLS
        self._origin = parse_url(url)._replace(path=None, query=None, fragment=None).url
        self._pool = self.connection_from_url(self._origin)

    def urlopen(  # type: ignore[override]  # as the base class has it
        self,
        method: str,
        url: str,
        redirect: bool = True,  # noqa: FBT001, FBT002 - the base class's own
        **arguments: Any,
    ) -> BaseHTTPResponse:
        """Call the service. Arguments and errors as those of the base class."""
        target = url.removeprefix(self._origin)
        if redirect or not target.startswith("/"):
            return super().urlopen(method, url, redirect, **arguments)
        return self._pool.urlopen(method, target, redirect=False, assert_same_host=False, **arguments)
