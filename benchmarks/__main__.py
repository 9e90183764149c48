"""`python -m benchmarks`: all measurements, as tables on the terminal and in `docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import big_run, process_costs, rendering
from benchmarks.report import Table, middle, write_page
from benchmarks.stage import Control, Stage, embedded_cloud
from benchmarks.throughput import FLOOR, LEAN_FLOOR, WORKER, pace
from tests.clouds import official_emulators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.throughput import Pace

THREADS = (1, 8, 16, 32)
LATENCIES = (0.0, 0.3)
#: A run takes some seconds whatever the threads and the latency.
STEPS = {1: 30, 8: 80, 16: 120, 32: 160}
BIG_RUNS = (50, 200, 1000)


@contextlib.contextmanager
def _cloud(*, official: bool) -> Iterator[tuple[Stage, Control]]:
    """The embedded cloud, or the official Pub/Sub and Firestore with the other two embedded."""
    with contextlib.ExitStack() as running:
        environment: Mapping[str, str] = running.enter_context(embedded_cloud())
        if official:
            emulators = running.enter_context(official_emulators())
            environment = {**environment, **emulators.environment()}
        stage = Stage(environment)
        running.callback(stage.close)
        yield stage, Control(environment)


def throughput(rounds: int, *, official: bool) -> Table:
    """The worker beside the floor, by latency and threads."""
    where = "the official Pub/Sub and Firestore emulators" if official else "the embedded cloud"
    table = Table(
        title=f"Steps of 3 charts, on {where}",
        words="One step a run. Wanted at 16 threads: 0.85 of the floor's steps/s at 300 ms, 0.8 at 0 ms, "
        "and at most 1.25 of its processor time. The worker also counts quota, which the floor does not.",
        columns=(
            "provider",
            "threads",
            "floor steps/s",
            "worker steps/s",
            "ratio",
            "floor ms",
            "worker ms",
            "ratio",
        ),
    )
    with _cloud(official=official) as (stage, control):
        for latency in LATENCIES:
            control.delay_charts(latency)
            for threads in THREADS:
                table.rows.append(_beside(stage, latency, threads, rounds))
    return table


def _beside(stage: Stage, latency: float, threads: int, rounds: int) -> list[str]:
    measure = partial(pace, stage, threads=threads, steps=STEPS[threads])
    pairs = [_pair(measure, worker_first=bool(number % 2)) for number in range(rounds)]
    floors, workers = [floor for floor, _ in pairs], [worker for _, worker in pairs]
    speed = [worker.steps_per_second / floor.steps_per_second for floor, worker in pairs]
    cost = [worker.cpu_ms_per_step / floor.cpu_ms_per_step for floor, worker in pairs]
    return [
        f"{1000 * latency:.0f} ms",
        str(threads),
        middle([floor.steps_per_second for floor in floors]),
        middle([worker.steps_per_second for worker in workers]),
        middle(speed, 2),
        middle([floor.cpu_ms_per_step for floor in floors]),
        middle([worker.cpu_ms_per_step for worker in workers]),
        middle(cost, 2),
    ]


def _pair(measure: Callable[[str], Pace], *, worker_first: bool) -> tuple[Pace, Pace]:
    """Floor and worker; who comes first changes, because the cloud fills up."""
    if worker_first:
        worker = measure(WORKER)
        return measure(FLOOR), worker
    return measure(FLOOR), measure(WORKER)


def shares(rounds: int) -> Table:
    """What the difference between floor and worker is made of."""
    table = Table(
        title="Where the worker's time goes: steps of 3 charts, 16 threads, 0 ms, on the embedded cloud",
        words="The lean floor makes the floor's calls over the worker's own HTTP connections: what is "
        "between it and the worker is leases, checks, quota, metrics and eleven log lines a step.",
        columns=("what", "steps/s", "ms", "of the floor's ms"),
    )
    with _cloud(official=False) as (stage, _):
        fixtures = {"CHARTS_API_MODE": "mock", **stage.fixtures()}
        kinds = {
            "floor": (FLOOR, {}),
            "lean floor": (LEAN_FLOOR, {}),
            "worker": (WORKER, {}),
            "worker, charts from files (no call, no quota)": (WORKER, fixtures),
        }
        paces: dict[str, list[Pace]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, (module, settings) in kinds.items():
                paces[name].append(pace(stage, module, threads=16, steps=STEPS[16], settings=settings))
    floor = statistics.median(one.cpu_ms_per_step for one in paces["floor"])
    for name, ones in paces.items():
        costs = [one.cpu_ms_per_step for one in ones]
        table.rows.append(
            [
                name,
                middle([one.steps_per_second for one in ones]),
                middle(costs),
                f"{statistics.median(costs) / floor:.2f}",
            ]
        )
    return table


def big_runs(rounds: int) -> Table:
    """Many steps of one run."""
    table = Table(
        title="One big run, steps of 1 chart, 32 threads",
        words="Wanted for 1,000 steps: 10 times the rate of conditional commits one by one (32 threads, "
        "without charts; the rate of the first 20 s), and at most 15 % of their 2,000 commits.",
        columns=(
            "steps",
            "steps/s",
            "commits",
            "of 2 a step",
            "MiB read",
            "one by one steps/s",
            "times faster",
        ),
    )
    with _cloud(official=False) as (stage, control):
        for steps in BIG_RUNS:
            runs = [big_run.grouped(stage, control, steps=steps) for _ in range(rounds)]
            single = big_run.one_by_one(stage, steps=steps)
            speed = statistics.median(run.steps_per_second for run in runs)
            commits = statistics.median(run.commits for run in runs)
            table.rows.append(
                [
                    str(steps),
                    middle([run.steps_per_second for run in runs]),
                    f"{commits:.0f}",
                    f"{commits / (2 * steps):.1%}",
                    middle([run.mib_read for run in runs]),
                    f"{single:.1f}",
                    f"{speed / single:.1f}",
                ]
            )
    return table


def render_times(rounds: int) -> Table:
    """Drawing."""
    table = Table(
        title="Drawing at 800x600, PNG included, on one core",
        words="Wanted: 20 ms and 200 KiB for each reference template.",
        columns=("what", "ms", "KiB"),
    )
    others = rendering.matplotlib_drawing(10 * rounds)
    for drawn in [*rendering.drawings(20 * rounds), *([others] if others else [])]:
        table.rows.append([drawn.name, f"{drawn.milliseconds:.1f}", f"{drawn.kib:.0f}"])
    return table


def costs(rounds: int) -> Table:
    """The process by itself."""
    table = Table(
        title="The process",
        words="Wanted: open stream within 1.5 s; idle below 1 % of a core and 130 MiB without the renderer; "
        "at most 10 MiB more after 10,000 steps.",
        columns=("what", "figure"),
    )
    with _cloud(official=False) as (stage, _):
        idle = [process_costs.idleness(stage) for _ in range(rounds)]
        grown = process_costs.growth(stage, steps=10_000)
    rows: list[Sequence[str]] = [
        ("start to open stream, s", middle([one.start_seconds for one in idle], 2)),
        ("idle, % of a core", middle([one.cpu_percent for one in idle], 2)),
        ("idle, resident MiB", middle([one.rss_mib for one in idle])),
        ("drain when idle, s", middle([one.drain_seconds for one in idle], 2)),
        (
            f"resident MiB before and after {grown.steps} steps",
            f"{grown.before_mib:.1f}, {grown.after_mib:.1f}",
        ),
    ]
    table.rows.extend(rows)
    return table


PARTS: dict[str, Callable[[int], Table]] = {
    "embedded": partial(throughput, official=False),
    "shares": shares,
    "big-run": big_runs,
    "rendering": render_times,
    "process": costs,
    "official": partial(throughput, official=True),
}


def main() -> int:
    """Measure what was asked for; when that is everything, the page is written as it becomes known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken")
    parser.add_argument("--only", nargs="+", choices=list(PARTS))
    options = parser.parse_args()
    tables = []
    for name in options.only or PARTS:
        tables.append(PARTS[name](options.rounds))
        sys.stdout.write(f"{tables[-1].text()}\n\n")
        sys.stdout.flush()
        if options.only:
            continue
        write_page(tables, command=f"make bench ROUNDS={options.rounds}", rounds=options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
