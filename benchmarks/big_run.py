"""Many steps in one document: the group commits of the worker beside single conditional commits."""

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

    from benchmarks.cloud import BenchCloud, Control

THREADS = 32
#: Single commits on a large run take many minutes, so the rate is measured over this time.
MAX_SECONDS_ONE_BY_ONE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BigRun:
    """The figures of one run with many steps.

    Attributes:
        steps_per_second: From the publishing of the first message to the last finished step.
        commits: Firestore commits of the worker.
        mib_read: MiB of documents read.
    """

    steps_per_second: float
    commits: int
    mib_read: float


def grouped(cloud: BenchCloud, control: Control, *, steps: int) -> BigRun:
    """Run a worker with 32 threads on one run whose steps have one chart each.

    Raises:
        RuntimeError: A step did not succeed.
    """
    ready = cloud.put_runs(1, steps=steps, charts=1)
    changed = {"WORKER_CONCURRENCY": str(THREADS), "CHARTS_API_MODE": "mock", **cloud.fixtures()}
    with cloud.queue() as queue, Measured(WORKER, cloud.settings(queue, **changed)) as process:
        process.wait_for("daemon_started")
        before, read = control.calls()["firestore"].get("Commit", 0), control.documents_mib_read()
        started = time.monotonic()
        queue.publish(ready)
        process.wait_for("step_completed", steps, seconds=600)
        seconds = time.monotonic() - started
        commits = control.calls()["firestore"]["Commit"] - before
        read = control.documents_mib_read() - read
        process.stop()
    if cloud.statuses(ready) != {"SUCCEEDED"}:
        raise RuntimeError(f"statuses {cloud.statuses(ready)}")
    return BigRun(steps_per_second=steps / seconds, commits=commits, mib_read=read)


def one_by_one(cloud: BenchCloud, *, steps: int, threads: int) -> float:
    """Return the steps per second when each claim and each finalize is its own conditional commit.

    A claim and a finalize that succeeded count half a step each. No charts are made.
    """
    ready = cloud.put_runs(1, steps=steps, charts=1)
    started = time.monotonic()
    until = started + MAX_SECONDS_ONE_BY_ONE

    def work(named: tuple[str, str]) -> int:
        step: dict[str, Any] = {"client": cloud.documents, "run_id": named[0], "step_id": named[1]}
        finish = partial(
            finalize_step,
            **step,
            status="SUCCEEDED",
            finished_at=rfc3339(datetime.now(UTC)),
            outputs_manifest_gcs_uri="gs://nobody/manifest.json",
        )
        if not _retry_until(partial(claim_step_transaction, **step), until):
            return 0
        return 1 + _retry_until(finish, until)

    with ThreadPoolExecutor(threads) as pool:
        commits = sum(pool.map(work, ready.steps))
    return commits / 2 / (time.monotonic() - started)


def _retry_until(call: Callable[[], Any], until: float) -> bool:
    """Repeat a call that lost its race; return False when the time has ended."""
    while time.monotonic() < until:
        with suppress(BackendUnavailable):
            call()
            return True
    return False
