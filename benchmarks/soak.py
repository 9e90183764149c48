"""A soak: one daemon under an even load for a long time; its memory, descriptors, threads and lag."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.cloud import open_cloud
from benchmarks.processes import Measured
from benchmarks.report import Table, Target
from benchmarks.throughput import WORKER

if TYPE_CHECKING:
    from benchmarks.cloud import BenchCloud
    from benchmarks.queues import Queue

MINUTES, ROWS = 30.0, 6
STEPS_A_SECOND = 10
MOST_GROWTH_MIB = 10.0


def soak(minutes: float) -> Table:
    """Publish steps at an even pace and measure the daemon in equal intervals."""
    table = Table(
        title=f"A soak of {minutes:g} minutes",
        description=f"{STEPS_A_SECOND} steps of 1 chart a second. The lag is that of the steps which are "
        "published and not finished at the end of the interval, in seconds of this pace.",
        columns=("after min", "steps", "resident MiB", "descriptors", "threads", "lag, s"),
    )
    with open_cloud(official=False) as (cloud, _), cloud.queue() as queue:
        settings = cloud.settings(queue, WORKER_CONCURRENCY="16")
        with Measured(WORKER, settings) as process:
            process.wait_for("daemon_started")
            published, memory = 0, []
            for row in range(1, ROWS + 1):
                published += _load(cloud, queue, seconds=60 * minutes / ROWS)
                memory.append(process.rss_mib())
                done = process.count("step_completed")
                table.rows.append(
                    [
                        f"{row * minutes / ROWS:.1f}",
                        str(done),
                        f"{memory[-1]:.1f}",
                        str(process.descriptors()),
                        str(process.threads()),
                        f"{(published - done) / STEPS_A_SECOND:.1f}",
                    ]
                )
            process.wait_for("step_completed", published)
            process.stop()
    grown = memory[-1] - memory[0]
    table.targets.append(
        Target(
            wanted=f"growth in a soak from the first interval to the last: at most {MOST_GROWTH_MIB:g} MiB",
            measured=f"{grown:.1f} MiB",
            is_met=grown <= MOST_GROWTH_MIB,
        )
    )
    return table


def _load(cloud: BenchCloud, queue: Queue, *, seconds: float) -> int:
    """Publish a second's steps each second; return how many."""
    started, published = time.monotonic(), 0
    while (left := started + seconds - time.monotonic()) > 0:
        queue.publish(cloud.put_runs(STEPS_A_SECOND, charts=1))
        published += STEPS_A_SECOND
        due = started + published / STEPS_A_SECOND
        time.sleep(max(0.0, min(left, due - time.monotonic())))
    return published
