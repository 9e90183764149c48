"""Measure steps per second and processor time per step, of the worker and of the floor."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.processes import Measured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.cloud import BenchCloud

WORKER, FLOOR, LEAN_FLOOR = "daemon", "benchmarks.floor", "benchmarks.lean_floor"
#: The warm-up reads templates and opens channels before the measurement starts.
WARM_UP_STEPS_A_THREAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The figures of one run.

    Attributes:
        steps_per_second: From the publishing of the first message to the settlement of the last.
        cpu_ms_per_step: Processor time of the process, all its threads, in milliseconds.
    """

    steps_per_second: float
    cpu_ms_per_step: float


def pace(
    cloud: BenchCloud,
    module: str,
    *,
    threads: int,
    steps: int,
    charts: int = 3,
    settings: Mapping[str, str] | None = None,
) -> Pace:
    """Start a process, warm it up, and measure it on `steps` runs of one step each.

    Raises:
        RuntimeError: A step did not succeed.
    """
    warm_up = cloud.put_runs(WARM_UP_STEPS_A_THREAD * threads, charts=charts)
    ready = cloud.put_runs(steps, charts=charts)
    changed = {"WORKER_CONCURRENCY": str(threads), **(settings or {})}
    with cloud.queue() as queue, Measured(module, cloud.settings(queue, **changed)) as process:
        process.wait_for("daemon_started")
        queue.publish(warm_up)
        process.wait_for("message_settled", len(warm_up.steps))
        cpu, started = process.cpu_seconds(), time.monotonic()
        queue.publish(ready)
        process.wait_for("message_settled", len(warm_up.steps) + steps, seconds=600)
        seconds, used = time.monotonic() - started, process.cpu_seconds() - cpu
        process.stop()
    if cloud.statuses(ready) != {"SUCCEEDED"}:
        raise RuntimeError(f"{module}: statuses {cloud.statuses(ready)}")
    return Pace(steps_per_second=steps / seconds, cpu_ms_per_step=1000 * used / steps)
