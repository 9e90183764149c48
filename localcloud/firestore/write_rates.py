"""Hold the commits on each document to a rate: they queue, in the order of their arrival.

Production takes about one write a second of one document. More writes wait longer and longer, and then end
with ABORTED. Source: https://cloud.google.com/firestore/docs/understand-error-codes and `resolve-latency`.
Google documents neither the length of that queue nor its bursts: this one has no bursts, and a fixed longest
wait.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from typing import TYPE_CHECKING

import grpc

from localcloud.grpc_server import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LONGEST_WAIT_SECONDS = 5.0


class CommitQueue:
    """The commits that wait for their documents. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets = itertools.count()
        self._waiting: dict[int, frozenset[str]] = {}
        self._free_at: dict[str, float] = {}

    @contextlib.contextmanager
    def turn(self, names: Iterable[str], *, per_second: float, stopping: threading.Event) -> Iterator[None]:
        """Wait until each document takes a commit. The commit is made in the context.

        A commit that fails takes no time of its documents.

        Args:
            names: The documents that the commit writes.
            per_second: How many commits a second a document takes.
            stopping: Set when the service stops.

        Raises:
            Refused: ABORTED after `LONGEST_WAIT_SECONDS`, UNAVAILABLE when the service stops.
        """
        wanted = frozenset(names)
        with self._changed:
            ticket = next(self._tickets)
            self._waiting[ticket] = wanted
        try:
            self._wait(ticket, wanted, stopping)
            yield
            self._hold(wanted, 1 / per_second)
        finally:
            with self._changed:
                del self._waiting[ticket]
                self._changed.notify_all()

    def wake(self) -> None:
        """Let all waiting commits see that the service stops."""
        with self._changed:
            self._changed.notify_all()

    def _wait(self, ticket: int, wanted: frozenset[str], stopping: threading.Event) -> None:
        with self._changed:
            until = time.monotonic() + LONGEST_WAIT_SECONDS
            while not stopping.is_set():
                is_next = not any(names & wanted for other, names in self._waiting.items() if other < ticket)
                now, free_at = time.monotonic(), max(self._free_at.get(name, 0.0) for name in wanted)
                if is_next and free_at <= now:
                    return
                if until <= now:
                    message = "Too much contention on these documents. Please try again."
                    raise Refused(grpc.StatusCode.ABORTED, message)
                self._changed.wait((min(until, free_at) if is_next else until) - now)
        raise Refused(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    def _hold(self, names: frozenset[str], seconds: float) -> None:
        with self._changed:
            now = time.monotonic()
            held = {name: free_at for name, free_at in self._free_at.items() if free_at > now}
            self._free_at = held | dict.fromkeys(names, now + seconds)
