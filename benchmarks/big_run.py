"""Many steps in one document: the worker's group commits, beside conditional commits one by one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.processes import Measured
from benchmarks.throughput import WORKER
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.orchestration import claim_step_transaction, finalize_step
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.stage import Control, Stage

THREADS = 32
#: One by one, a large run takes many minutes: the rate is that of so many seconds.
MAX_SECONDS_ONE_BY_ONE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BigRun:
    """What one run of many steps showed.

    Attributes:
        steps_per_second: From the publishing of the first message to the last finished step.
        commits: Of the worker.
        mib_read: Of documents.
    """

    steps_per_second: float
    commits: int
    mib_read: float


def grouped(stage: Stage, control: Control, *, steps: int) -> BigRun:
    """A worker with 32 threads on one run whose steps have a chart each.

    Raises:
        RuntimeError: A step did not succeed.
    """
    asked = stage.put_runs(1, steps=steps, charts=1)
    changed = {"WORKER_CONCURRENCY": str(THREADS), "CHARTS_API_MODE": "mock", **stage.fixtures()}
    with stage.queue() as queue, Measured(WORKER, stage.settings(queue, **changed)) as process:
        process.wait_for("daemon_started")
        before, read = control.calls()["firestore"].get("Commit", 0), control.documents_mib_read()
        began = time.monotonic()
        queue.publish(asked)
        process.wait_for("step_completed", steps, seconds=600)
        seconds = time.monotonic() - began
        commits = control.calls()["firestore"]["Commit"] - before
        read = control.documents_mib_read() - read
        process.stop()
    if stage.statuses(asked) != {"SUCCEEDED"}:
        raise RuntimeError(f"statuses {stage.statuses(asked)}")
    return BigRun(steps_per_second=steps / seconds, commits=commits, mib_read=read)


def one_by_one(stage: Stage, *, steps: int, threads: int) -> float:
    """Steps a second, when threads claim and finalize each step by a conditional commit of its own.

    A claim and a finalize that landed count half a step each. No charts are made.
    """
    asked = stage.put_runs(1, steps=steps, charts=1)
    began = time.monotonic()
    until = began + MAX_SECONDS_ONE_BY_ONE

    def work(named: tuple[str, str]) -> int:
        step: dict[str, Any] = {"client": stage.documents, "run_id": named[0], "step_id": named[1]}
        finish = partial(
            finalize_step,
            **step,
            status="SUCCEEDED",
            finished_at=rfc3339(datetime.now(UTC)),
            outputs_manifest_gcs_uri="gs://nobody/manifest.json",
        )
        if not _insist(partial(claim_step_transaction, **step), until):
            return 0
        return 1 + _insist(finish, until)

    with ThreadPoolExecutor(threads) as pool:
        commits = sum(pool.map(work, asked.steps))
    return commits / 2 / (time.monotonic() - began)


def _insist(call: Callable[[], Any], until: float) -> bool:
    """Call again what gave up a race; False when the time is over."""
    while time.monotonic() < until:
        with suppress(BackendUnavailable):
            call()
            return True
    return False
