"""Shared calls: of all callers at the same time (`SingleFlight`), or of all callers ever (`LoadOnce`)."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

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


class LoadOnce:
    """Read and parse bytes at the first call; each later call gets the same result or error. Thread-safe.

    The bytes are not kept.

    Args:
        read: Reads the bytes.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._results: list[Any] = []
        self._error: Exception | None = None

    def load(self, parse: Callable[[bytes], R]) -> R:
        """Return the result of the one parse, or raise the error of the read or of the parse.

        Args:
            parse: Takes the bytes. All callers must pass functions that do the same.
        """
        with self._lock:
            if self._error is not None:
                raise _without_traceback(self._error)
            if not self._results:
                try:
                    self._results.append(parse(self._read()))
                except Exception as error:  # also unexpected ones: nothing is read twice
                    self._error = _without_traceback(error)
                    raise
        result: R = self._results[0]
        return result


def _without_traceback(error: Exception) -> Exception:
    """Copy an error without its traceback, which would keep what was read in memory."""
    copied = type(error).__new__(type(error), *error.args)
    copied.args = error.args
    copied.__dict__.update(error.__dict__)
    return copied
