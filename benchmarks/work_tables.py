"""Tables of the worker alone: big runs, drawing, the costs of the process."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks import big_run, process_costs, rendering
from benchmarks.cloud import open_cloud
from benchmarks.report import Table, Target, median_and_range

if TYPE_CHECKING:
    from collections.abc import Sequence

BIG_RUNS = (50, 200, 1000)


def big_runs(rounds: int) -> Table:
    """Measure many steps of one run."""
    table = Table(
        title="One big run, steps of 1 chart, 32 threads, on the embedded cloud",
        description="For comparison: single conditional commits on such a run, without charts and leases. "
        "With 32 threads they show the worker without group commits. With one thread no other writer "
        "disturbs them. Their rate is that of the first 10 s. Real Firestore limits one document to about "
        "one write a second; the embedded one has no such limit.",
        columns=(
            "steps",
            "steps/s",
            "commits",
            "of 2 a step",
            "MiB read",
            "one by one, 32 threads",
            "times faster",
            "one by one, 1 thread",
            "times faster",
        ),
    )
    with open_cloud(official=False) as (cloud, control):
        for steps in BIG_RUNS:
            runs = [big_run.grouped(cloud, control, steps=steps) for _ in range(rounds)]
            racing, in_turn = (
                [big_run.one_by_one(cloud, steps=steps, threads=threads) for _ in range(rounds)]
                for threads in (big_run.THREADS, 1)
            )
            speed = statistics.median(run.steps_per_second for run in runs)
            commits = statistics.median(run.commits for run in runs)
            table.rows.append(
                [
                    str(steps),
                    median_and_range([run.steps_per_second for run in runs]),
                    f"{commits:.0f}",
                    f"{commits / (2 * steps):.1%}",
                    median_and_range([run.mib_read for run in runs]),
                    median_and_range(racing, 2),
                    f"{speed / statistics.median(racing):.1f}",
                    median_and_range(in_turn),
                    f"{speed / statistics.median(in_turn):.1f}",
                ]
            )
        times, share = speed / statistics.median(racing), commits / (2 * steps)
    table.targets.extend(
        [
            Target(
                wanted="1,000 steps in one run: at least 10 times the one-by-one rate (32 threads)",
                measured=f"{times:.0f} times",
                is_met=times >= 10,  # noqa: PLR2004 - as it says
            ),
            Target(
                wanted="1,000 steps in one run: commits at most 15 % of 2,000",
                measured=f"{share:.1%}",
                is_met=share <= 0.15,  # noqa: PLR2004 - as it says
            ),
        ]
    )
    return table


def render_times(rounds: int) -> Table:
    """Measure drawing."""
    table = Table(
        title="Drawing at 800x600, PNG included, on one core",
        description="All in turn, 20 times a round. The last row is ctpl_price_ma1226_vol_v1 by matplotlib.",
        columns=("what", "ms", "KiB"),
    )
    *templates, other = rendering.drawings(20 * rounds)
    for drawn in (*templates, other):
        table.rows.append([drawn.name, median_and_range(drawn.milliseconds), f"{drawn.kib:.0f}"])
    slowest = max(statistics.median(drawn.milliseconds) for drawn in templates)
    largest = max(drawn.kib for drawn in templates)
    table.targets.extend(
        [
            Target(
                wanted="each reference template drawn in 20 ms at most",
                measured=f"{slowest:.1f} ms the slowest",
                is_met=slowest <= 20,  # noqa: PLR2004 - as it says
            ),
            Target(
                wanted="each reference template 200 KiB at most",
                measured=f"{largest:.0f} KiB the largest",
                is_met=largest <= 200,  # noqa: PLR2004 - as it says
            ),
        ]
    )
    return table


def costs(rounds: int) -> Table:
    """Measure the process alone."""
    table = Table(
        title="The process",
        description="Idle: 20 s without messages, with a rescue search every 10 s. Drained: from SIGTERM to "
        "the end. Growth: steps of 1 chart through the provider, 16 threads.",
        columns=("what", "figure"),
    )
    with open_cloud(official=False) as (cloud, control):
        idle = [process_costs.idleness(cloud) for _ in range(rounds)]
        busy = [process_costs.busy_drain(cloud, control) for _ in range(rounds)]
        grown = process_costs.growth(cloud, steps=10_000)
    starts = [one.start_seconds for one in idle]
    shares_of_core, memory = [one.cpu_percent for one in idle], [one.rss_mib for one in idle]
    growth_mib = grown.after_mib - grown.before_mib
    table.rows.extend(
        [
            ("start to open stream, s", median_and_range(starts, 2)),
            ("idle, % of a core", median_and_range(shares_of_core, 2)),
            ("idle, resident MiB (renderer not loaded)", median_and_range(memory)),
            ("drained when idle, s", median_and_range([one.drain_seconds for one in idle], 2)),
            ("drained with 16 steps under way at 300 ms a chart, s", median_and_range(busy, 2)),
            ("resident MiB before any step", f"{grown.idle_mib:.1f}"),
            (f"after {process_costs.SETTLED_STEPS} steps", f"{grown.before_mib:.1f}"),
            (f"after {grown.steps} more", f"{grown.after_mib:.1f}"),
        ]
    )
    table.targets.extend(
        [
            _at_most("start to open stream", starts, 1.5, "s"),
            _at_most("idle processor time", shares_of_core, 1.0, "% of a core"),
            _at_most("idle resident memory without the renderer", memory, 130.0, "MiB"),
            _at_most("growth over 10,000 steps", [growth_mib], 10.0, "MiB"),
        ]
    )
    return table


def _at_most(what: str, figures: Sequence[float], high: float, unit: str) -> Target:
    figure = statistics.median(figures)
    return Target(
        wanted=f"{what} below {high:g} {unit}", measured=f"{figure:.2f} {unit}", is_met=figure < high
    )
