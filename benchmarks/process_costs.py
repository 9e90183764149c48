"""What a process costs by itself: its start, its idleness, its memory after much work, its drain."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.processes import Measured
from benchmarks.throughput import WARM_UP_STEPS_A_THREAD, WORKER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.queues import Queue
    from benchmarks.stage import Control, Stage

IDLE_SECONDS = 20.0
#: By default the rescue looks for leases that are over once a minute, and most of such times would hold no
#: look at all. Here they hold one to three: more than an idle worker does, never less.
IDLE_RESCUE_SECONDS = 10
#: Pools are filled and caches warm after so many steps; growth counts from there.
SETTLED_STEPS = 500
#: While a busy worker is stopped: what the provider takes for a chart, and the steps that wait for a thread.
BUSY_LATENCY = 0.3
BUSY_STEPS_A_THREAD = 4


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
    changed = {"RESCUE_INTERVAL_SECONDS": str(IDLE_RESCUE_SECONDS)}
    with stage.queue() as queue, Measured(WORKER, stage.settings(queue, **changed)) as process:
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


def growth(stage: Stage, *, steps: int, a_batch: int = 500) -> Growth:
    """Let a worker work so many steps of one chart each, which it gets from the provider.

    Raises:
        RuntimeError: A step did not succeed.
    """
    changed = {"WORKER_CONCURRENCY": "16"}
    with stage.queue() as queue, Measured(WORKER, stage.settings(queue, **changed)) as process:
        process.wait_for("daemon_started")
        idle = process.rss_mib()
        _work(SETTLED_STEPS, stage, queue, process)
        before = process.rss_mib()
        for start in range(0, steps, a_batch):
            _work(min(a_batch, steps - start), stage, queue, process)
        after = process.rss_mib()
        process.stop()
    return Growth(idle_mib=idle, before_mib=before, after_mib=after, steps=steps)


def _work(count: int, stage: Stage, queue: Queue, process: Measured) -> None:
    """Ask for so many steps of one chart each and wait until they are done."""
    asked, done = stage.put_runs(count, charts=1), process.count("step_completed")
    queue.publish(asked)
    process.wait_for("step_completed", done + count, seconds=600)
    _check(stage.statuses(asked), allowed={"SUCCEEDED"})


def busy_drain(stage: Stage, control: Control, *, threads: int = 16) -> float:
    """Stop a worker all of whose threads work steps of three charts; seconds from SIGTERM to the end.

    Raises:
        RuntimeError: It did not end well, or left a step neither done nor given back.
    """
    asked = stage.put_runs(BUSY_STEPS_A_THREAD * threads, charts=3)
    changed = {"WORKER_CONCURRENCY": str(threads)}
    with stage.queue() as queue, Measured(WORKER, stage.settings(queue, **changed)) as process:
        process.wait_for("daemon_started")
        _work(WARM_UP_STEPS_A_THREAD * threads, stage, queue, process)
        claimed = process.count("claim_attempt")
        with _thinking_provider(control):
            queue.publish(asked)
            # A chart takes longer than the claims: none of these steps is done yet.
            process.wait_for("claim_attempt", claimed + threads)
            seconds = process.stop()
    _check(stage.statuses(asked), allowed={"SUCCEEDED", "READY"})
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
