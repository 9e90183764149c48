"""What is asked of the daemons: how many runs, steps, messages and daemons."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localcloud.faults import Fault

if TYPE_CHECKING:
    from tests.chaos.world import World

#: The defaults of the daemon, in place of the short ones of the other scenarios.
SETTINGS = {
    "LEASE_SECONDS": "120",
    "CLOCK_SKEW_SECONDS": "5",
    "RESCUE_INTERVAL_SECONDS": "60",
    "ACK_EXTENSION_SECONDS": "60",
    "STEP_TIMEOUT_SECONDS": "300",
    "DRAIN_SECONDS": "25",
    "NOT_READY_GRACE_SECONDS": "600",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load.

    Attributes:
        runs: The number of runs.
        steps: The READY chart steps of each run.
        charts: The charts of each step.
        copies: How often each step's message is sent.
        by_run: One message names the whole run, instead of one for each step.
        daemons: The number of daemons.
        threads: The `WORKER_CONCURRENCY` of each.
        commits_per_second: Hold the commits on each Firestore document to this rate; 0 = no limit.
    """

    runs: int
    steps: int
    charts: int = 1
    copies: int = 1
    by_run: bool = False
    daemons: int = 2
    threads: int = 8
    commits_per_second: float = 0.0

    def settings(self) -> dict[str, str]:
        """Return the settings of its daemons."""
        return {**SETTINGS, "WORKER_CONCURRENCY": str(self.threads)}


LOADS = {
    "backlog": Load(runs=400, steps=5, copies=5),
    "runs": Load(runs=1000, steps=2, by_run=True),
    "big-run": Load(runs=1, steps=1500, threads=32),
    "limited-run": Load(runs=1, steps=1500, threads=32, commits_per_second=1.0),
    "crowd": Load(runs=200, steps=5, charts=2, daemons=8),
}


def messages_of(world: World, load: Load) -> list[dict[str, str]]:
    """Store the runs of a load; return its messages, shuffled."""
    found: list[dict[str, str]] = []
    for _ in range(load.runs):
        run_id, step_ids = world.put_run(steps=load.steps, charts=load.charts)
        named = [{"runId": run_id}]
        if not load.by_run:
            named = [{"runId": run_id, "stepId": step_id} for step_id in step_ids]
        found += named * load.copies
    random.Random(0).shuffle(found)  # noqa: S311 - repeatable on purpose
    return found


def limit(world: World, load: Load) -> None:
    """Hold the commits on each document to the rate of the load."""
    if load.commits_per_second:
        world.cloud.firestore.faults.add(Fault(method="Commit", commits_per_second=load.commits_per_second))


def drip(world: World, *, a_second: int, seconds: float, copies: int) -> int:
    """Send the messages of new runs of one step at an even pace; return the number of steps."""
    began, sent = time.monotonic(), 0
    one = Load(runs=1, steps=1, copies=copies)
    while (left := began + seconds - time.monotonic()) > 0:
        world.deliver(messages_of(world, one))
        sent += 1
        time.sleep(max(0.0, min(left, began + sent / a_second - time.monotonic())))
    return sent
