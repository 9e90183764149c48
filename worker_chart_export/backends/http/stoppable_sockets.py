"""Blocking calls that end when their step is stopped: the sockets in use are shut down from outside.

`cancellable_by` marks a call. The HTTP connections (`stoppable_urllib3`) name the socket on which its thread
is about to block on. A shutdown wakes that thread at once, below TLS as well; the library then raises some
connection error, and the caller asks the budget why.

A connection attempt is not woken: it ends by its own timeout, and nothing is sent over it afterwards.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.errors import WorkerError


class CancellableCall:
    """One call under way, with the sockets it holds, by whoever uses them.

    Each is held by a descriptor of its own. So a handshake that moves the connection to another socket object
    changes nothing, and a descriptor that was closed and given to somebody else is never the one shut down.

    Attributes:
        was_sent: A connection stood, and the server may have got the request.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}
        self._stopped = False
        self.was_sent = False

    def hold(self, user: object, held: socket.socket) -> None:
        """Shut `held` down when the call is stopped; at once if it already is."""
        self.let_go(user)
        # A socket that is closed, or a process out of descriptors: the operation itself will say so.
        with suppress(OSError), self._lock:
            self._held[id(user)] = handle = os.dup(held.fileno())
            if self._stopped:
                _shut_down(handle)

    def let_go(self, user: object) -> None:
        """The user blocks on its socket no more."""
        with self._lock:
            handle = self._held.pop(id(user), None)
            if handle is not None:
                os.close(handle)

    def stop(self, _error: WorkerError) -> None:
        """Wake whoever blocks."""
        with self._lock:
            self._stopped = True
            for handle in self._held.values():
                _shut_down(handle)

    def end(self) -> None:
        """Let go of what is still held."""
        with self._lock:
            for handle in self._held.values():
                os.close(handle)
            self._held.clear()


_CALL: ContextVar[CancellableCall | None] = ContextVar("stoppable_call", default=None)


@contextmanager
def cancellable_by(scope: CancelScope) -> Iterator[CancellableCall]:
    """Requests made in this context, by this thread, end with a connection error when `budget` is stopped."""
    call = CancellableCall()
    token = _CALL.set(call)
    try:
        with scope.while_running(call.stop):
            yield call
    finally:
        _CALL.reset(token)
        call.end()


def hold(user: object, held: socket.socket) -> None:
    """The current call, if there is one, is about to block on `held`; `user` is who lets go of it."""
    call = _CALL.get()
    if call is not None:
        call.hold(user, held)


def let_go(user: object) -> None:
    """`user` has done with the socket that it held for the current call."""
    call = _CALL.get()
    if call is not None:
        call.let_go(user)


def note_sending() -> None:
    """The connection of the current call stands; its request is sent from now on."""
    call = _CALL.get()
    if call is not None:
        call.was_sent = True


def _shut_down(handle: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(handle)) as held:  # the other side may be faster
        held.shutdown(socket.SHUT_RDWR)
