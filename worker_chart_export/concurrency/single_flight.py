"""Shared calls: of all callers at the same time (`SingleFlight`), or of all callers ever (`ReadOnce`)."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from worker_chart_export.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")
R = TypeVar("R")


class SingleFlight(Generic[K, R]):
    """Share one running call between all callers that need the same key. Thread-safe.

    Nothing is cached: the next caller after the end of a call starts a new one.

    Args:
        call: Takes the key; its result or error goes to each caller.
        fresh: Never return a result whose call began before the caller asked. A caller that arrives during a
            call then waits for its end, and shares the next call with all others that wait.
    """

    def __init__(self, call: Callable[[K], R], *, fresh: bool = False) -> None:
        self._call = call
        self._fresh = fresh
        self._lock = threading.Lock()
        self._running: dict[K, Future[R]] = {}
        self._next: dict[K, Future[R]] = {}

    def get(self, key: K) -> R:
        """Return the result of the shared call, or raise its error."""
        with self._lock:
            running = self._running.get(key)
            flight = self._next.get(key) if self._fresh else running
            if is_first := flight is None:
                flight = Future()
                (self._next if running else self._running)[key] = flight
        if is_first:
            if running:
                wait([running])
            try:
                publish = partial(flight.set_result, self._call(key))
            except BaseException as error:  # noqa: BLE001 - raised below, to each caller that shares it
                publish = partial(flight.set_exception, error)
            with self._lock:  # before the result is known: later callers must not join this call
                del self._running[key]
                if key in self._next:
                    self._running[key] = self._next.pop(key)
            publish()
        return flight.result()


class ReadOnce:
    """Read bytes at the first call; every later call gets the same bytes or error. Shared by all threads.

    Args:
        read: Reads the bytes.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._result: bytes | WorkerError | None = None

    def __call__(self) -> bytes:
        """Return the bytes, or raise the error of the one read."""
        with self._lock:
            if self._result is None:
                try:
                    self._result = self._read()
                except WorkerError as error:
                    self._result = error
        if isinstance(self._result, WorkerError):
            raise self._result
        return self._result
