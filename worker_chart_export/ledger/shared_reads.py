"""Reads of one run shared by all who ask at the same time.

A run's document holds all its steps, so one read serves every message that names one of them. Whoever asks
while a read is under way shares the next one: nobody is given what was read before he asked.
"""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_chart_export.ledger.run_snapshot import RunSnapshot


class SharedReads:
    """Shared by all threads.

    Args:
        read: Reads a run.
    """

    def __init__(self, read: Callable[[str], RunSnapshot]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._runs: weakref.WeakValueDictionary[str, _Run] = weakref.WeakValueDictionary()

    def read(self, run_id: str) -> RunSnapshot:
        """The run as it is at some moment after this call began; errors as the read's own."""
        with self._lock:
            run = self._runs.get(run_id)
            if run is None:
                run = self._runs[run_id] = _Run()
            shared, is_first = run.join()
        if is_first:
            with run.reading:
                with self._lock:
                    run.begin()
                try:
                    shared.set_result(self._read(run_id))
                except BaseException as error:  # noqa: BLE001 - it is raised below, for each who shares it
                    shared.set_exception(error)
        return shared.result()


class _Run:
    """The read under way, and the one that those who ask now share."""

    def __init__(self) -> None:
        self.reading = threading.Lock()
        self._next: Future[RunSnapshot] | None = None

    def join(self) -> tuple[Future[RunSnapshot], bool]:
        is_first = self._next is None
        if self._next is None:
            self._next = Future()
        return self._next, is_first

    def begin(self) -> None:
        self._next = None
