"""Connections of urllib3, on which all HTTP of this worker goes, whose calls end when their step is stopped.

A connection's socket is held from the moment that a request uses it until the connection is back in its pool,
see `stoppable_sockets`.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from worker_chart_export.backends.http.stoppable_sockets import hold, let_go, note_sending

if TYPE_CHECKING:
    import socket

#: What was idle for longer may be dead without a word, and what a dead one swallows is not sent again.
MAX_IDLE_SECONDS = 5.0


class _Holding:
    """What a connection does so that its call can be stopped, whichever its scheme."""

    sock: Any
    kept_since = math.inf

    def _new_conn(self) -> socket.socket:
        opened: socket.socket = super()._new_conn()  # type: ignore[misc]
        hold(self, opened)  # from here on, so that the proxy's answer and the TLS handshake can be stopped
        return opened

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, perhaps over the connection of an earlier one."""
        if self.sock is None:
            self.connect()  # type: ignore[attr-defined]
        hold(self, self.sock)
        note_sending()
        super().request(*args, **kwargs)  # type: ignore[misc]


class CancellableConnection(_Holding, HTTPConnection):
    """Not encrypted; its name is seen in urllib3's errors."""


class CancellableTlsConnection(_Holding, HTTPSConnection):
    """Encrypted."""


class _Keeping:
    """What a pool of such connections does when it gives one out, and gets it back."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)  # type: ignore[misc]
        if time.monotonic() - conn.kept_since > MAX_IDLE_SECONDS:
            conn.close()  # it opens anew when it is used
        return conn

    def _put_conn(self, conn: Any) -> None:
        let_go(conn)
        if conn is not None:
            conn.kept_since = time.monotonic()
        super()._put_conn(conn)  # type: ignore[misc]


class CancellablePool(_Keeping, HTTPConnectionPool):
    """Of connections that are not encrypted."""

    ConnectionCls = CancellableConnection


class CancellableTlsPool(_Keeping, HTTPSConnectionPool):
    """Of those that are."""

    ConnectionCls = CancellableTlsConnection


def make_cancellable(manager: PoolManager) -> None:
    """Let calls over this manager's connections, direct or through an HTTP proxy, be stopped."""
    manager.pool_classes_by_scheme = {"http": CancellablePool, "https": CancellableTlsPool}
