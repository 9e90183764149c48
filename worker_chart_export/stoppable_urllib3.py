"""Connections of urllib3, on which all HTTP of this worker goes, whose calls end when their step is stopped.

A connection's socket is held from the moment that a request uses it until the connection is back in its pool,
see `stoppable_sockets`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
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


class StoppableConnection(_Holding, HTTPConnection):
    """Not encrypted; its name is seen in urllib3's errors."""


class StoppableTlsConnection(_Holding, HTTPSConnection):
    """Encrypted."""


class _LettingGo:
    """What a pool of such connections does when it gets one back."""

    def _put_conn(self, conn: BaseHTTPConnection | None) -> None:
        let_go(conn)
        super()._put_conn(conn)  # type: ignore[misc]


class _Pool(_LettingGo, HTTPConnectionPool):
    ConnectionCls = StoppableConnection


class _TlsPool(_LettingGo, HTTPSConnectionPool):
    ConnectionCls = StoppableTlsConnection


def make_stoppable(manager: PoolManager) -> None:
    """Let calls over this manager's connections, direct or through an HTTP proxy, be stopped."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
