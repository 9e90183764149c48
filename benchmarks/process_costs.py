"""What a process costs by itself: its start, its idleness, its memory after much work, its drain."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.processes import Measured
from benchmarks.throughput import WORKER

if TYPE_CHECKING:
    from benchmarks.stage import Stage

IDLE_SECONDS = 20.0
#: Pools are filled and caches warm after so many steps; growth counts from there.
SETTLED_STEPS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Idleness:
    """A worker that has nothing to do.

    Attributes:
        start_seconds: From the start of the process to the open stream.
        cpu_percent: Of one core.
        rss_mib: Resident memory.
        drain_seconds: From SIGTERM to the end.
    """

    start_seconds: float
    cpu_percent: float
    rss_mib: float
    drain_seconds: float


def idleness(stage: Stage) -> Idleness:
    """Start a worker, leave it alone for a while, stop it."""
    with stage.queue() as queue, Measured(WORKER, stage.settings(queue)) as process:
        process.wait_for("daemon_started")
        started = time.monotonic() - process.started_at
        cpu = process.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        used = process.cpu_seconds() - cpu
        rss = process.rss_mib()
        return Idleness(
            start_seconds=started,
            cpu_percent=100 * used / IDLE_SECONDS,
            rss_mib=rss,
            drain_seconds=process.stop(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Resident memory in MiB after `SETTLED_STEPS`, and after `steps` more."""

    before_mib: float
    after_mib: float
    steps: int


def growth(stage: Stage, *, steps: int, a_batch: int = 500) -> Growth:
    """Let a worker work so many steps of one chart each."""
    changed = {"WORKER_CONCURRENCY": "16", "CHARTS_API_MODE": "mock", **stage.fixtures()}
    with stage.queue() as queue, Measured(WORKER, stage.settings(queue, **changed)) as process:

        def work(count: int, done: int) -> int:
            queue.publish(stage.put_runs(count, charts=1))
            process.wait_for("step_completed", done + count, seconds=600)
            return done + count

        process.wait_for("daemon_started")
        done = work(SETTLED_STEPS, 0)
        before = process.rss_mib()
        while done < SETTLED_STEPS + steps:
            done = work(a_batch, done)
        after = process.rss_mib()
        process.stop()
    return Growth(before_mib=before, after_mib=after, steps=steps)
