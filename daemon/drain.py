"""Stopping: who is still working, and how long they may.

Stage one takes no new work and lets running steps finish; stage two stops them. What follows a third time is
the hard exit, which is `main`'s.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker_chart_export.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker_chart_export.budget import StepBudget


class Drain:
    """Knows the deliveries and steps under way in this process. Shared by all threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._draining = False
        self._stopped = False
        self._deliveries = 0
        self._budgets: set[StepBudget] = set()

    @property
    def is_draining(self) -> bool:
        """Whether new work is refused."""
        return self._draining

    @property
    def steps_running(self) -> int:
        """How many steps are being worked right now."""
        with self._changed:
            return len(self._budgets)

    def start(self) -> None:
        """Take no new work from now on."""
        self._draining = True

    @contextmanager
    def delivery(self) -> Iterator[None]:
        """A delivery from its arrival until it is settled."""
        with self._changed:
            self._deliveries += 1
        try:
            yield
        finally:
            with self._changed:
                self._deliveries -= 1
                self._changed.notify_all()

    @contextmanager
    def running(self, budget: StepBudget) -> Iterator[None]:
        """A step under way; it is stopped through its budget."""
        with self._changed:
            self._budgets.add(budget)
            if self._stopped:
                budget.stop(Interrupted("the worker is shutting down"))
        try:
            yield
        finally:
            with self._changed:
                self._budgets.discard(budget)

    def stop_steps(self) -> None:
        """Stop every step that still runs, and any that starts from now on."""
        with self._changed:
            self._stopped = True
            running = list(self._budgets)
        for budget in running:
            budget.stop(Interrupted("the worker is shutting down"))

    def wait_until_idle(self, timeout_seconds: float) -> bool:
        """Wait until every delivery is settled; whether that happened in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._deliveries == 0, timeout_seconds)
