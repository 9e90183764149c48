"""Steps a second and processor time a step, of the worker and of the floor, one after the other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.processes import Measured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.stage import Stage

WORKER, FLOOR, LEAN_FLOOR = "daemon", "benchmarks.floor", "benchmarks.lean_floor"
#: Templates are read, channels opened and code paths first taken before the clock runs.
WARM_UP_STEPS_A_THREAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What one run showed.

    Attributes:
        steps_per_second: From the publishing of the first message to the settlement of the last.
        cpu_ms_per_step: Processor time of the process, all its threads, in milliseconds.
    """

    steps_per_second: float
    cpu_ms_per_step: float


def pace(
    stage: Stage,
    module: str,
    *,
    threads: int,
    steps: int,
    charts: int = 3,
    settings: Mapping[str, str] | None = None,
) -> Pace:
    """Start a process, warm it up, and let it work so many runs of one step each.

    Raises:
        RuntimeError: A step did not succeed.
    """
    warm_up = stage.put_runs(WARM_UP_STEPS_A_THREAD * threads, charts=charts)
    asked = stage.put_runs(steps, charts=charts)
    changed = {"WORKER_CONCURRENCY": str(threads), **(settings or {})}
    with stage.queue() as queue, Measured(module, stage.settings(queue, **changed)) as process:
        process.wait_for("daemon_started")
        queue.publish(warm_up)
        process.wait_for("message_settled", len(warm_up.steps))
        cpu, began = process.cpu_seconds(), time.monotonic()
        queue.publish(asked)
        process.wait_for("message_settled", len(warm_up.steps) + steps, seconds=600)
        seconds, used = time.monotonic() - began, process.cpu_seconds() - cpu
        process.stop()
    if stage.statuses(asked) != {"SUCCEEDED"}:
        raise RuntimeError(f"{module}: statuses {stage.statuses(asked)}")
    return Pace(steps_per_second=steps / seconds, cpu_ms_per_step=1000 * used / steps)
