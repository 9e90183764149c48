"""An adapter for `requests` whose calls end when their step is stopped, see `stoppable_sockets`.

A connection's socket is held from the moment that a request uses it until the connection is back in its pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests.adapters
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from worker_chart_export.stoppable_sockets import hold, let_go

if TYPE_CHECKING:
    import socket

    from urllib3._base_connection import BaseHTTPConnection


class _Holding:
    """What a connection does so that its call can be stopped, whichever its scheme."""

    def _new_conn(self) -> socket.socket:
        opened: socket.socket = super()._new_conn()  # type: ignore[misc]
        hold(self, opened)  # from here on, so that the proxy's answer and the TLS handshake can be stopped
        return opened

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, perhaps over the connection of an earlier one."""
        kept: socket.socket | None = self.sock  # type: ignore[attr-defined]
        if kept is not None:
            hold(self, kept)
        super().request(*args, **kwargs)  # type: ignore[misc]


class _Connection(_Holding, HTTPConnection):
    pass


class _TlsConnection(_Holding, HTTPSConnection):
    pass


class _LettingGo:
    """What a pool of such connections does when it gets one back."""

    def _put_conn(self, conn: BaseHTTPConnection | None) -> None:
        let_go(conn)
        super()._put_conn(conn)  # type: ignore[misc]


class _Pool(_LettingGo, HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(_LettingGo, HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}


class StoppableAdapter(requests.adapters.HTTPAdapter):
    """An `HTTPAdapter` whose calls can be stopped, also through an HTTP proxy (not through a SOCKS one)."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Give the pools of a proxy's connections."""
        manager = super().proxy_manager_for(*args, **kwargs)
        if type(manager) is ProxyManager:
            manager.pool_classes_by_scheme = _POOLS
        return manager
