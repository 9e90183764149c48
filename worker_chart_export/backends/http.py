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
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests.adapters
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager, Retry
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssltransport import SSLTransport
from urllib3.util.wait import wait_for_read

from worker_chart_export.timing import boot_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.errors import WorkerError

#: The `retries` of a request that is sent once. urllib3 would make an object for each `False`.
NO_RETRIES = Retry(total=False, redirect=False)
#: A connection that was idle for longer is not used again: a gateway may have dropped it without a notice,
#: and a request that is lost on it is not sent again.
MAX_IDLE_SECONDS = 5.0
#: How much of the body of an error is read, or of another answer that is of no use.
MAX_ERROR_BYTES = 8 * 1024
#: A server that sends more interim answers than this to one request is broken.
MAX_INTERIM_ANSWERS = 20
#: The status lines and headers of one answer, with those of the interim answers before it.
MAX_HEAD_BYTES = 64 * 1024


class _Twin(socket.socket):
    """A second descriptor of a socket."""


@dataclass(slots=True, eq=False)
class CancellableCall:
    """The sockets that a running call may block on, by the connection that uses them.

    Attributes:
        was_sent: A connection was open, so the server may have received the request.
        error: The error that the call was stopped with; the first one counts.
        lock: Held while sockets are shut down, and while one is closed: the system may give the descriptor of
            a closed socket to another file, which must not be shut down.
    """

    was_sent: bool = False
    error: WorkerError | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)  # a destructor may close one meanwhile
    _sockets: dict[int, socket.socket] = field(default_factory=dict)

    def hold(self, connection: object, opened: Any) -> None:
        """Shut `opened` down when the call is stopped, or at once when it is stopped already."""
        self.release(connection)
        with self.lock:
            self._sockets[id(connection)] = held = _socket_of(opened)
            if self.error is not None:
                _shut_down(held)

    def hold_twin(self, connection: object, opened: socket.socket) -> None:
        """As `hold`, by a second descriptor: a TLS handshake takes the first one away from `opened`."""
        # An error means that there is no free descriptor. The call itself will report it.
        with suppress(OSError):
            self.hold(connection, _Twin(fileno=os.dup(opened.fileno())))

    def release(self, connection: object) -> None:
        """Forget the socket of a connection that does not block any more."""
        with self.lock:
            held = self._sockets.pop(id(connection), None)
            if isinstance(held, _Twin):
                held.close()

    def stop(self, error: WorkerError) -> None:
        """Shut all held sockets down, so that the blocked thread continues."""
        with self.lock:
            self.error = self.error or error
            for held in self._sockets.values():
                _shut_down(held)

    def check_stopped(self) -> None:
        """Return unless the call is stopped. The answer of a stopped call may be incomplete.

        Raises:
            WorkerError: The error of the stop.
        """
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Forget all sockets."""
        with self.lock:
            for held in self._sockets.values():
                if isinstance(held, _Twin):
                    held.close()
            self._sockets.clear()


def _socket_of(opened: Any) -> socket.socket:
    """Return the socket itself: with TLS within TLS, as through an `https` proxy, `opened` is none."""
    held: socket.socket = opened.socket if isinstance(opened, SSLTransport) else opened
    return held


def _shut_down(opened: socket.socket) -> None:
    """Shut a socket down below TLS, whose own `shutdown` is not for other threads."""
    # An error means that one side has closed the connection already.
    with suppress(OSError):
        socket.socket.shutdown(opened, socket.SHUT_RDWR)


def _decrypted_bytes(opened: Any) -> int:
    """Return how many bytes TLS has received that were not read; with TLS within TLS, also encrypted ones."""
    if isinstance(opened, ssl.SSLSocket):
        return opened.pending()
    if isinstance(opened, SSLTransport):
        return int(opened.sslobj.pending() + opened.incoming.pending)
    return 0


_CALL: ContextVar[CancellableCall | None] = ContextVar("cancellable_call", default=None)


@contextmanager
def cancellable_by(scope: CancelScope) -> Iterator[CancellableCall]:
    """End the requests that this thread makes in this context when `scope` is stopped.

    They end with a connection error of the library. The call that is yielded knows the reason. It can also be
    stopped by itself, for example by a `CallTimer`.
    """
    call = CancellableCall()
    token = _CALL.set(call)
    try:
        with scope.while_running(call.stop):
            yield call
    finally:
        _CALL.reset(token)
        call.close()


def _while_closing() -> AbstractContextManager[object]:
    """Return a context in which a socket of the running call can be closed."""
    call = _CALL.get()
    return nullcontext() if call is None else call.lock


class _AnswerBytes(io.RawIOBase):
    """The bytes of a socket, until its answer is read to the end."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.has_ended = False
        self.fileno = raw.fileno  # type: ignore[method-assign]

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """Read from the socket. After the end of the answer, say that nothing is there."""
        return None if self.has_ended else self._raw.readinto(buffer)

    def close(self) -> None:
        """Close the socket, if its connection is closed too."""
        with _while_closing():
            self._raw.close()
        super().close()


class _AnswerReader(io.BufferedReader):
    """Read one answer from a socket. If more bytes were read with it, shut the socket down at its end.

    Those bytes may be a part of another answer. The pool finds the closed socket and opens a new connection,
    as it does when more bytes arrive later.
    """

    def __init__(self, opened: socket.socket, raw: io.RawIOBase) -> None:
        self._socket = opened
        self._bytes = _AnswerBytes(raw)
        self._head_bytes_left: int | None = MAX_HEAD_BYTES
        super().__init__(self._bytes)

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
            self._bytes.has_ended = True
            if self.peek(1) or _decrypted_bytes(self._socket):
                _shut_down(_socket_of(self._socket))
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
    #: The headers, while they wait for their body.
    unsent_head: bytes | None = None

    def _new_conn(self) -> socket.socket:
        opened: socket.socket = super()._new_conn()  # type: ignore[misc]
        if (call := _CALL.get()) is not None:  # so that a proxy's answer and a TLS handshake can be cancelled
            call.hold_twin(self, opened)
        return opened

    def request(self, method: str, url: str, body: Any = None, *args: Any, **kwargs: Any) -> None:
        """Send a request over a new connection, or over the connection of an earlier request."""
        if is_new := self.sock is None:
            self.connect()  # type: ignore[attr-defined]
        if (call := _CALL.get()) is not None:
            call.hold(self, self.sock)
            call.was_sent = True
        self.is_new, self.request_parts_sent, self.has_early_answer = is_new, 0, False
        self.unsent_head = b"" if body and isinstance(body, bytes) else None
        super().request(method, url, body, *args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Send the headers or the body; the headers of a body of bytes in one piece with it.

        Two pieces would wake the server twice. An answer that is there before a piece is sent may answer
        something else, and another one may follow. So it is the last of its connection.
        """
        if self.unsent_head == b"":
            self.unsent_head = data
            return
        if self.unsent_head is not None:
            data, self.unsent_head = self.unsent_head + data, None
        if self._must_look():
            self.has_early_answer |= wait_for_read(self.sock, timeout=0)
        super().send(data)  # type: ignore[misc]
        self.request_parts_sent += 1

    def _must_look(self) -> bool:
        """Return whether to look for an answer before the next piece."""
        if self.is_new:  # with TLS, session tickets may arrive meanwhile
            return type(self.sock) is socket.socket
        return self.request_parts_sent > 0  # before the first piece, the pool has looked

    def close(self) -> None:
        """Close the socket, unless an answer is still read from it."""
        with _while_closing():
            super().close()  # type: ignore[misc]

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
