"""One big run while each Firestore document takes one commit a second, as in production."""

from __future__ import annotations

from benchmarks import big_run
from benchmarks.cloud import open_cloud
from benchmarks.report import Table, Target, median_and_range

STEPS = (200, 1000)
COMMITS_PER_SECOND = 1.0
MOST_SECONDS = 60.0


def limited_runs(rounds: int, *, sizes: tuple[int, ...] = STEPS) -> Table:
    """Measure big runs on documents that are held to a rate."""
    table = Table(
        title="One big run at one commit a second",
        description="As above, but the embedded Firestore holds each document to one commit a second, as the "
        "real one does in the long run: commits wait in a queue, without bursts.",
        columns=("steps", "seconds", "steps/s", "commits", "claims and finalizes a commit"),
    )
    with open_cloud(official=False) as (cloud, control):
        control.limit_commits(COMMITS_PER_SECOND)
        for steps in sizes:
            runs = [big_run.grouped(cloud, control, steps=steps) for _ in range(rounds)]
            seconds = [steps / run.steps_per_second for run in runs]
            table.rows.append(
                [
                    str(steps),
                    median_and_range(seconds),
                    median_and_range([run.steps_per_second for run in runs]),
                    median_and_range([float(run.commits) for run in runs], 0),
                    median_and_range([2 * steps / run.commits for run in runs]),
                ]
            )
            if steps == STEPS[0]:
                table.targets.append(
                    Target(
                        wanted=f"{steps} steps in one run, one commit a second: {MOST_SECONDS:.0f} s at most",
                        measured=f"{median_and_range(seconds)} s",
                        is_met=max(seconds) <= MOST_SECONDS,
                    )
                )
    return table
