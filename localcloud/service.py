"""The base of all services: counted calls, faults, stop and restart on the same port."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from localcloud.faults import Fault, Faults
from localcloud.refusals import Refusals


class Calls:
    """A thread-safe counter per method name. A method that was never called counts 0."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._changed = threading.Condition()

    def add(self, method: str, count: int = 1) -> None:
        """Add `count` calls of `method`."""
        with self._changed:
            self._counts[method] += count
            self._changed.notify_all()

    def __getitem__(self, method: str) -> int:
        with self._changed:
            return self._counts[method]

    def as_dict(self) -> dict[str, int]:
        """Return a copy of all counts by method name."""
        with self._changed:
            return dict(self._counts)

    def reset(self) -> None:
        """Set all counts to zero."""
        with self._changed:
            self._counts.clear()

    def wait_for(self, method: str, count: int, *, timeout_seconds: float) -> bool:
        """Wait until `method` was called at least `count` times; return False on a timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._counts[method] >= count, timeout_seconds)


class Service:
    """A restartable server on one port of 127.0.0.1.

    Attributes:
        calls: Calls per method name.
        faults: The faults armed for them.
        refusals: Is told of each request that is refused as not served.
        port: The port; 0 = any free one at the first start.
        stopping: Set when the server stops; a new one at each start.
        supported_faults: The special kinds of fault it supports.
    """

    name = "service"
    supported_faults: frozenset[str] = frozenset()

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        self.calls = Calls()
        self.faults = Faults(seed, self.check_fault)
        self.refusals = Refusals()
        self.port = port
        self.stopping = threading.Event()
        self._server: Any = None

    def check_fault(self, fault: Fault) -> None:
        """Refuse faults that could never fire here.

        Raises:
            ValueError: An unknown method, status or kind of fault.
        """
        raise NotImplementedError

    def lose_state(self) -> None:
        """Delete everything stored."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        """Return whether the server runs."""
        return self._server is not None

    def start(self) -> None:
        """Start the server, on the same port as before. If it runs already, do nothing.

        Raises:
            OSError, RuntimeError: The port is taken.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Cut off all calls and free the port. Stored data stays. No effect when it does not run."""
        raise NotImplementedError

    def restart(self, *, lose_state: bool = False) -> None:
        """Stop and start again on the same port; stored data stays unless `lose_state` is set."""
        self.stop()
        if lose_state:
            self.lose_state()
        self.start()
