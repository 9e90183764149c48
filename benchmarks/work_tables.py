"""Tables of the worker alone: big runs, drawing, the costs of the process."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks import big_run, process_costs, renderer_processes, rendering
from benchmarks.cloud import open_cloud
from benchmarks.report import Table, Target, median_and_range
from daemon.settings.cores import available_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

BIG_RUNS = (50, 200, 1000)


def big_runs(rounds: int) -> Table:
    """Measure many steps of one run."""
    table = Table(
        title="One big run, steps of 1 chart, 32 threads, on the embedded cloud",
        description="For comparison: single conditional commits on such a run, without charts and leases. "
        "With 32 threads they show the worker without group commits. With one thread no other writer "
        "disturbs them. Their rate is that of the first 10 s. They use this package too, and are three times "
        "as fast as when the bound was set: a run is decoded only where it is read. Real Firestore limits "
        "one document to about one write a second; here the embedded one has no such limit.",
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
        title="Drawing on one core, PNG included",
        description="Processor time. All in turn, 20 times a round. 400 daily bars at 800x600, unless the "
        "table says otherwise.",
        columns=("template", "what", "ms", "KiB"),
    )
    drawn = rendering.drawings(20 * rounds)
    for one in drawn:
        table.rows.append([one.name, one.kind, median_and_range(one.milliseconds), f"{one.kib:.0f}"])
    bounds = {"800x600": 15, "1920x1080": 60, f"{rendering.MANY_BARS:,} bars": 80}
    for kind, bound in bounds.items():
        slowest = max(statistics.median(one.milliseconds) for one in drawn if one.kind == kind)
        table.targets.append(
            Target(
                wanted=f"each reference template, {kind}: {bound} ms at most",
                measured=f"{slowest:.1f} ms the slowest",
                is_met=slowest <= bound,
            )
        )
    largest = max(one.kib for one in drawn if one.kind == "800x600")
    table.targets.append(
        Target(
            wanted="each reference template at 800x600: 200 KiB at most",
            measured=f"{largest:.0f} KiB the largest",
            is_met=largest <= 200,  # noqa: PLR2004 - as it says
        )
    )
    return table


def render_pool(rounds: int) -> Table:
    """Measure drawing on several cores."""
    table = Table(
        title="Drawing in renderer processes",
        description="The reference templates in turn at 800x600, for 8 threads; all pools in turn. Other "
        "work of the machine lowers the rates, but hardly the processor time. The ratio by that is of a pool "
        "which has the cores for itself.",
        columns=(
            *("processes", "charts/s", "of one process", "CPU ms a chart", "of one, by CPU ms"),
            "CPU ms in the daemon",
        ),
    )
    sizes = (1, 2) if available_cores() <= 2 else (1, 2, available_cores())  # noqa: PLR2004 - as it says
    taken = [[renderer_processes.pool_rate(size) for size in sizes] for _ in range(2 * rounds)]
    for place, size in enumerate(sizes):
        rates = [rates_of_round[place] for rates_of_round in taken]
        ratios = [
            mine.charts_per_second / of[0].charts_per_second for mine, of in zip(rates, taken, strict=True)
        ]
        by_processor_time = [
            size * of[0].milliseconds / mine.milliseconds for mine, of in zip(rates, taken, strict=True)
        ]
        table.rows.append(
            [
                str(size),
                median_and_range([rate.charts_per_second for rate in rates]),
                median_and_range(ratios, 2),
                median_and_range([rate.milliseconds for rate in rates]),
                median_and_range(by_processor_time, 2),
                median_and_range([rate.own_milliseconds for rate in rates], 2),
            ]
        )
        if size == 2:  # noqa: PLR2004 - as it says
            table.targets.append(
                Target(
                    wanted="two renderer processes: at least 1.7 times the charts of one",
                    measured=median_and_range(ratios, 2),
                    is_met=statistics.median(ratios) >= 1.7,  # noqa: PLR2004 - as it says
                )
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
            _at_most("start to open stream", starts, 1.0, "s"),
            _at_most("idle processor time", shares_of_core, 1.0, "% of a core"),
            _at_most("idle resident memory without the renderer", memory, 90.0, "MiB"),
            _at_most("growth over 10,000 steps", [growth_mib], 10.0, "MiB"),
        ]
    )
    return table


def _at_most(what: str, figures: Sequence[float], high: float, unit: str) -> Target:
    figure = statistics.median(figures)
    return Target(
        wanted=f"{what} at most {high:g} {unit}", measured=f"{figure:.2f} {unit}", is_met=figure <= high
    )
