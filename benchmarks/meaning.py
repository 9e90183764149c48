"""What the figures mean for a chart provider that takes two seconds: a table, a plot, and words."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.cloud import open_cloud
from benchmarks.processes import ROOT
from benchmarks.report import Table, median_and_range
from benchmarks.throughput import WORKER, pace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PLOT = ROOT / "docs" / "pictures" / "slow-provider.svg"
LATENCY_SECONDS = 2.0
THREADS = (1, 8, 16, 32)
STEPS_A_THREAD, CHARTS = 4, 3
#: Calls a day of a Chart-IMG account, for the last columns.
CALLS_A_DAY = (500, 10_000)


def slow_provider(rounds: int, *, threads: Sequence[int] = THREADS, plot: Path = PLOT) -> Table:
    """Measure a daemon whose provider takes two seconds, and draw the plot."""
    table = Table(
        title="What this means for you: a chart provider that takes two seconds",
        description="The provider is the limit, not the worker: a thread waits for its charts nearly all the "
        "time, so that more threads (`WORKER_CONCURRENCY`) make more charts. An account of N calls a day is "
        "soon used up; then another account, or a higher limit, helps, and no faster worker. Steps of 3 "
        "charts, four for each thread, one daemon, the embedded cloud. Google's client sometimes starts a "
        "message only at the next ack: a measurement of four turns then takes a fifth one.\n\n"
        "![Charts a minute by threads, measured and at best](pictures/slow-provider.svg)",
        columns=(
            *("threads", "charts a minute", "of what two seconds allow", "CPU, % of a core"),
            *(f"{calls:,} calls last, min" for calls in CALLS_A_DAY),
        ),
    )
    measured = []
    with open_cloud(official=False) as (cloud, control):
        control.delay_charts(LATENCY_SECONDS)
        for count in threads:
            paces = [pace(cloud, WORKER, threads=count, steps=STEPS_A_THREAD * count) for _ in range(rounds)]
            charts = [60 * CHARTS * one.steps_per_second for one in paces]
            busy = [one.steps_per_second * one.cpu_ms_per_step / 10 for one in paces]
            measured.append(statistics.median(charts))
            table.rows.append(
                [
                    str(count),
                    median_and_range(charts, 0),
                    f"{measured[-1] / _allowed(count):.0%}",
                    median_and_range(busy),
                    *(f"{calls / measured[-1]:.1f}" for calls in CALLS_A_DAY),
                ]
            )
    _draw(threads, measured, plot)
    return table


def _allowed(threads: int) -> float:
    """Return the charts a minute of a worker that costs no time."""
    return 60 * CHARTS * threads / LATENCY_SECONDS


def _draw(threads: Sequence[int], measured: Sequence[float], plot: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - only this needs it
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same ids each time
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(threads, [_allowed(count) for count in threads], "--", color="#787b86", label="2 s and no more")
    axes.plot(threads, measured, "o-", color="#2962ff", label="measured")
    axes.set_xlabel("threads (WORKER_CONCURRENCY)")
    axes.set_ylabel("charts a minute")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(plot, metadata={"Date": None})
