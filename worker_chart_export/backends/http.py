"""HTTP connections whose blocking calls a cancel scope can end.

`cancellable_by` marks the calls of a scope: when the scope is stopped, the sockets that the calls use are
shut down from another thread. The blocked thread then continues at once, also below TLS, with a connection
error of the library. A connection attempt can't be cancelled. It ends by its own timeout, and nothing is sent
afterwards.

Interim answers (1xx) are skipped. A connection that holds bytes after its answer is not used again, so that
no request gets the answer of another one.

All HTTP of this worker uses these connections; `connections` opens them. Requests for access tokens use
`CancellableAdapter`.
"""

from __future__ import annotations

import http.client
import io
import math
import os
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests.adapters
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.wait import wait_for_read

from worker_chart_export.timing import boot_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.errors import WorkerError

#: A connection that was idle for longer is not used again: a gateway may have dropped it without a notice,
#: and a request that is lost on it is not sent again.
MAX_IDLE_SECONDS = 5.0
#: How much of the body of an error is read, or of another answer that is of no use.
MAX_ERROR_BYTES = 8 * 1024
#: A server that sends more interim answers than this to one request is broken.
MAX_INTERIM_ANSWERS = 20
#: The status lines and headers of one answer, with those of the interim answers before it.
MAX_HEAD_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class CancellableCall:
    """The sockets that a running call may block on, by the connection that uses them.

    Each socket is held by a duplicate of its descriptor. So a TLS handshake, which replaces the socket
    object, changes nothing. And a descriptor that the system has reused for another file is never shut down.

    Attributes:
        was_sent: A connection was open, so the server may have received the request.
    """

    was_sent: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _descriptors: dict[int, int] = field(default_factory=dict)
    _is_stopped: bool = False

    def hold(self, connection: object, opened: socket.socket) -> None:
        """Shut `opened` down when the call is stopped, or at once when it is stopped already."""
        self.release(connection)
        # An error means a closed socket or no free descriptor. The call itself will report it.
        with suppress(OSError), self._lock:
            self._descriptors[id(connection)] = descriptor = os.dup(opened.fileno())
            if self._is_stopped:
                _shut_down(descriptor)

    def release(self, connection: object) -> None:
        """Forget the socket of a connection that does not block any more."""
        with self._lock:
            descriptor = self._descriptors.pop(id(connection), None)
            if descriptor is not None:
                os.close(descriptor)

    def stop(self, _error: WorkerError) -> None:
        """Shut all held sockets down, so that the blocked thread continues."""
        with self._lock:
            self._is_stopped = True
            for descriptor in self._descriptors.values():
                _shut_down(descriptor)

    def close(self) -> None:
        """Forget all sockets."""
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()


def _shut_down(descriptor: int) -> None:
    # An error means that the other side has closed the connection already.
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


_CALL: ContextVar[CancellableCall | None] = ContextVar("cancellable_call", default=None)


@contextmanager
def cancellable_by(scope: CancelScope) -> Iterator[CancellableCall]:
    """End the requests that this thread makes in this context when `scope` is stopped.

    They end with a connection error of the library. The caller has to check the scope for the reason.
    """
    call = CancellableCall()
    token = _CALL.set(call)
    try:
        with scope.while_running(call.stop):
            yield call
    finally:
        _CALL.reset(token)
        call.close()


class _AnswerReader(io.BufferedReader):
    """Read one answer from a socket. At its end, shut the socket down if more bytes have arrived.

    Those bytes may be a part of another answer. The pool finds the closed socket and opens a new connection.
    """

    def __init__(self, opened: socket.socket, raw: io.RawIOBase) -> None:
        self._socket = opened
        self._head_bytes_left: int | None = MAX_HEAD_BYTES
        super().__init__(raw)

    def end_head(self) -> None:
        """Read lines without the limit of the head: what follows is the body."""
        self._head_bytes_left = None

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line: of the head, or one that frames a chunk. urllib3 reads those without a limit.

        Raises:
            HTTPException: The head of the answer, or the line, is too large. Or the connection ends within
                the head: `http.client` would take that for the end of the headers, and for an empty body.
        """
        left = MAX_HEAD_BYTES if self._head_bytes_left is None else self._head_bytes_left
        limit = left + 1 if size is None or size < 0 else min(size, left + 1)
        line = super().readline(limit)
        if len(line) > left:
            raise http.client.HTTPException(f"more than {MAX_HEAD_BYTES} bytes of headers")
        if self._head_bytes_left is not None:
            has_begun = bool(line) or self._head_bytes_left < MAX_HEAD_BYTES
            if has_begun and len(line) < limit and not line.endswith(b"\n"):
                raise http.client.HTTPException("the connection ended within the headers")
            self._head_bytes_left -= len(line)
        return line

    def close(self) -> None:
        """Check the buffer, and with TLS also that of OpenSSL, for what follows the answer."""
        if not self.closed:
            # An error means that nothing has arrived, or that the socket is closed.
            with suppress(OSError):
                timeout = self._socket.gettimeout()
                self._socket.settimeout(0)
                try:
                    if self.peek(1):
                        _shut_down(self._socket.fileno())
                finally:
                    self._socket.settimeout(timeout)
        super().close()


class _FinalResponse(http.client.HTTPResponse):
    """The final answer to a request, without the interim answers before it."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = _AnswerReader(sock, self.fp.detach())

    def begin(self) -> None:
        """Read status and headers of the final answer. `http.client` itself skips only 100 (RFC 9110, 15.2).

        Raises:
            HTTPException: There are too many interim answers, or too many bytes before the body.
        """
        super().begin()
        interim = 0
        while self.status // 100 == 1 and self.status != HTTPStatus.SWITCHING_PROTOCOLS:
            interim += 1
            if interim > MAX_INTERIM_ANSWERS:
                raise http.client.HTTPException(f"more than {MAX_INTERIM_ANSWERS} interim answers")
            self.headers = None  # type: ignore[assignment]  # with headers, `begin` does nothing
            super().begin()
        self.fp.end_head()  # type: ignore[attr-defined]  # typeshed knows only the base class
        if self.status == HTTPStatus.SWITCHING_PROTOCOLS or not _has_clear_end(self.headers):
            self.will_close = True  # what follows may be anything


class _LastResponse(_FinalResponse):
    """An answer whose connection is not used again."""

    def begin(self) -> None:
        """Read status and headers."""
        super().begin()
        self.will_close = True


def _has_clear_end(headers: Message) -> bool:
    """Return whether the headers agree on where the answer ends (RFC 9112, 6.3)."""
    lengths, coding = headers.get_all("content-length", []), headers.get("transfer-encoding")
    if coding is not None:
        return coding.strip().lower() == "chunked" and not lengths
    return len({length.strip() for length in lengths}) <= 1


class _Cancellable:
    """Mixin for a connection: hold its socket from its first use until the connection is back in the pool."""

    response_class: Any = _FinalResponse
    sock: Any
    kept_since = math.inf
    is_new = True
    request_parts_sent = 0
    has_early_answer = False

    def _new_conn(self) -> socket.socket:
        opened: socket.socket = super()._new_conn()  # type: ignore[misc]
        if (call := _CALL.get()) is not None:  # so that a proxy's answer and a TLS handshake can be cancelled
            call.hold(self, opened)
        return opened

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request over a new connection, or over the connection of an earlier request."""
        if is_new := self.sock is None:
            self.connect()  # type: ignore[attr-defined]
        if (call := _CALL.get()) is not None:
            call.hold(self, self.sock)
            call.was_sent = True
        self.is_new, self.request_parts_sent, self.has_early_answer = is_new, 0, False
        super().request(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Send the headers or the body. Note an answer that is there before the body is sent.

        It may answer something else, and another answer may follow. The first request of a connection with
        TLS is not watched: session tickets may arrive meanwhile.
        """
        if self.request_parts_sent and not (self.is_new and isinstance(self.sock, ssl.SSLSocket)):
            self.has_early_answer |= wait_for_read(self.sock, timeout=0)
        super().send(data)  # type: ignore[misc]
        self.request_parts_sent += 1

    def getresponse(self) -> Any:
        """Return the final answer. One that is early is the last of its connection."""
        self.response_class = _LastResponse if self.has_early_answer else _FinalResponse
        return super().getresponse()  # type: ignore[misc]


class CancellableConnection(_Cancellable, HTTPConnection):
    """A connection without TLS. Errors of urllib3 show the name of this class."""


class CancellableTlsConnection(_Cancellable, HTTPSConnection):
    """A connection with TLS."""


class _CancellablePool:
    """Mixin for a pool of such connections."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)  # type: ignore[misc]
        if boot_seconds() - connection.kept_since > MAX_IDLE_SECONDS:
            connection.close()  # its next request opens it again
        return connection

    def _put_conn(self, connection: Any) -> None:
        if connection is not None:
            if (call := _CALL.get()) is not None:
                call.release(connection)
            connection.kept_since = boot_seconds()
        super()._put_conn(connection)  # type: ignore[misc]


class CancellablePool(_CancellablePool, HTTPConnectionPool):
    """A pool of connections without TLS."""

    ConnectionCls = CancellableConnection


class CancellableTlsPool(_CancellablePool, HTTPSConnectionPool):
    """A pool of connections with TLS."""

    ConnectionCls = CancellableTlsConnection


#: The `pool_classes_by_scheme` that makes the calls of a `PoolManager` cancellable.
POOLS: dict[str, type[HTTPConnectionPool]] = {"http": CancellablePool, "https": CancellableTlsPool}


class CancellableAdapter(requests.adapters.HTTPAdapter):
    """An `HTTPAdapter` with cancellable calls, direct or through an HTTP proxy, not a SOCKS proxy."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pools of a proxy's connections."""
        manager = super().proxy_manager_for(*args, **kwargs)
        if type(manager) is ProxyManager:
            manager.pool_classes_by_scheme = POOLS
        return manager
