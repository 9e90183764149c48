"""The searches: which workers, steps, messages and disturbances each of them has."""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.explorer.core import Core
from tests.explorer.outside import Moves, first_state
from tests.explorer.search import Search
from worker_chart_export.observability.logs import logged_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.explorer.search import Found

#: Nothing is logged in a search: each question to the core would log its answer.
SILENT = logging.getLogger("explorer")
SILENT.setLevel(logging.CRITICAL + 1)
#: What happens to processes, connections and messages, without persons and the orchestrator.
OF_PROCESSES = frozenset(
    {
        "the process is killed",
        "the process is frozen",
        "drain_started",
        "no answer",
        "heartbeat",
        "backend_unavailable",
        "delivered twice",
    }
)


#: The ends of workers.
OF_WORKERS = frozenset({"the process is killed", "the process is frozen", "no answer"})


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a search begins with.

    Attributes:
        workers: How many workers.
        steps: How many steps of the one run.
        disturbances: How many may happen, in any combination and at any moment.
        messages: How many messages name each step.
        status: The status of the steps. RUNNING: a worker without leases has taken them, and has ended.
        releases: How often the steps, then RUNNING, were released before for a backend that is unavailable.
        clocks_off: How many workers have a clock that stands still.
        kinds: The disturbances; None: all.
        is_one_process: The first two workers are threads of one process, whose commits can be one.
    """

    workers: int = 2
    steps: int = 1
    disturbances: int = 1
    messages: int = 1
    status: str = "READY"
    releases: int = 0
    clocks_off: int = 0
    kinds: frozenset[str] | None = field(default=None, repr=False)
    is_one_process: bool = False

    def __str__(self) -> str:
        parts = [
            f"{self.workers} workers",
            _counted(self.steps, "step"),
            _counted(self.disturbances, "disturbance"),
        ]
        if self.kinds is not None:
            parts[-1] += " of processes and networks" if self.kinds == OF_PROCESSES else " of workers"
        if self.messages > 1:
            parts.append(f"{self.messages} messages a step")
        if self.status == "RUNNING":
            parts.append("RUNNING without a lease")
        if self.releases:
            parts.append(f"released {_counted(self.releases, 'time')} before")
        if self.is_one_process:
            parts[0] = "2 threads of one process"
        if self.clocks_off:
            parts.append("one clock stands still")
        return ", ".join(parts)

    def search(
        self, core: Core | None = None, *, max_seconds: float = 600.0, may_pay_late: bool = True
    ) -> Found:
        """Search from here. With `may_pay_late` a wrong clock may let a worker pay after its lease."""
        slow = frozenset(range(self.workers - self.clocks_off, self.workers))
        first = first_state(
            workers=self.workers,
            steps=self.steps,
            faults=self.disturbances,
            messages=self.messages,
            status=self.status,
            releases=self.releases,
        )
        moves = Moves(core or Core(), slow=slow, faults=self.kinds, shares=self.is_one_process)
        with logged_to(SILENT), _without_garbage():
            return Search(moves, first, max_seconds=max_seconds, may_pay_late=may_pay_late).run()


@contextmanager
def _without_garbage() -> Iterator[None]:
    """Look for no garbage: states hold no cycles, and each search would go through all of them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


#: Half a minute.
SHORT = (
    Setting(),
    Setting(workers=3),
    Setting(status="RUNNING"),
    Setting(clocks_off=1),
    Setting(releases=10, kinds=OF_PROCESSES),
    Setting(steps=2, disturbances=0, is_one_process=True),
)
#: Some minutes.
LONG = (
    *SHORT,
    Setting(messages=2),
    Setting(steps=2),
    Setting(steps=2, is_one_process=True),
    Setting(disturbances=2),
    Setting(releases=9, disturbances=2, kinds=OF_PROCESSES),
    Setting(workers=3, disturbances=2, kinds=OF_PROCESSES),
    Setting(disturbances=3, kinds=OF_WORKERS),
)
