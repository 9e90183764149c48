"""Measure a process alone: its start, its idle cost, its memory after much work, its drain."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.processes import Measured
from benchmarks.throughput import WARM_UP_STEPS_A_THREAD, WORKER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cloud import BenchCloud, Control
    from benchmarks.queues import Queue

IDLE_SECONDS = 20.0
#: By default the rescue searches once a minute, so most measurements would contain no search. With this
#: interval each contains one to three: more than an idle worker does, never less.
IDLE_RESCUE_SECONDS = 10
#: Pools are filled and caches are warm after this many steps; growth counts from there.
SETTLED_STEPS = 500
#: For the drain of a busy worker: seconds per chart, and the steps that wait for each thread.
BUSY_LATENCY = 0.3
BUSY_STEPS_A_THREAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Idleness:
    """The figures of a worker that has nothing to do.

    Attributes:
        start_seconds: From the start of the process to the open stream.
        cpu_percent: Percent of one core.
        rss_mib: Resident memory.
        drain_seconds: From SIGTERM to the end.
    """

    start_seconds: float
    cpu_percent: float
    rss_mib: float
    drain_seconds: float


def idleness(cloud: BenchCloud) -> Idleness:
    """Measure a worker that has nothing to do."""
    changed = {"RESCUE_INTERVAL_SECONDS": str(IDLE_RESCUE_SECONDS)}
    with cloud.queue() as queue, Measured(WORKER, cloud.settings(queue, **changed)) as process:
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
    """A worker's resident memory in MiB.

    Attributes:
        idle_mib: Before its first step.
        before_mib: After `SETTLED_STEPS`.
        after_mib: After `steps` more.
        steps: How many steps lie between the last two.
    """

    idle_mib: float
    before_mib: float
    after_mib: float
    steps: int


def growth(cloud: BenchCloud, *, steps: int, a_batch: int = 500) -> Growth:
    """Measure the memory of a worker over `steps` steps of one chart each.

    Raises:
        RuntimeError: A step did not succeed.
    """
    changed = {"WORKER_CONCURRENCY": "16"}
    with cloud.queue() as queue, Measured(WORKER, cloud.settings(queue, **changed)) as process:
        process.wait_for("daemon_started")
        idle = process.rss_mib()
        _work(SETTLED_STEPS, cloud, queue, process)
        before = process.rss_mib()
        for start in range(0, steps, a_batch):
            _work(min(a_batch, steps - start), cloud, queue, process)
        after = process.rss_mib()
        process.stop()
    return Growth(idle_mib=idle, before_mib=before, after_mib=after, steps=steps)


def _work(count: int, cloud: BenchCloud, queue: Queue, process: Measured) -> None:
    """Publish `count` steps of one chart each and wait until they are finished."""
    ready, done = cloud.put_runs(count, charts=1), process.count("step_completed")
    queue.publish(ready)
    process.wait_for("step_completed", done + count, seconds=600)
    _check(cloud.statuses(ready), allowed={"SUCCEEDED"})


def busy_drain(cloud: BenchCloud, control: Control, *, threads: int = 16) -> float:
    """Stop a worker whose threads are all busy; return the seconds from SIGTERM to the end.

    Raises:
        RuntimeError: Its exit code is not 0, or it left a step neither finished nor released.
    """
    ready = cloud.put_runs(BUSY_STEPS_A_THREAD * threads, charts=3)
    changed = {"WORKER_CONCURRENCY": str(threads)}
    with cloud.queue() as queue, Measured(WORKER, cloud.settings(queue, **changed)) as process:
        process.wait_for("daemon_started")
        _work(WARM_UP_STEPS_A_THREAD * threads, cloud, queue, process)
        claimed = process.count("claim_attempt")
        with _thinking_provider(control):
            queue.publish(ready)
            # A chart takes longer than the claims: none of these steps is done yet.
            process.wait_for("claim_attempt", claimed + threads)
            seconds = process.stop()
    _check(cloud.statuses(ready), allowed={"SUCCEEDED", "READY"})
    return seconds


@contextlib.contextmanager
def _thinking_provider(control: Control) -> Iterator[None]:
    control.delay_charts(BUSY_LATENCY)
    try:
        yield
    finally:
        control.delay_charts(0.0)


def _check(statuses: set[str], *, allowed: set[str]) -> None:
    if not statuses <= allowed:
        raise RuntimeError(f"statuses {sorted(statuses)}, wanted {sorted(allowed)}")
