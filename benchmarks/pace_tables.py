"""Tables that compare the worker with the floor: steps per second and processor time."""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.cloud import open_cloud
from benchmarks.report import Table, Target, median_and_range
from benchmarks.throughput import FLOOR, LEAN_FLOOR, WORKER, Pace, pace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.cloud import BenchCloud

#: Measured one after the other: a floor and what is compared with it, a pair for each round.
Pairs = list[tuple[Pace, Pace]]

THREADS = (1, 8, 16, 32)
LATENCIES = (0.0, 0.3)
#: Enough steps for a run of some seconds at any number of threads and any latency.
STEPS = {1: 30, 8: 120, 16: 200, 32: 320}
#: The lowest share of the floor's steps/s: with one thread, and with more.
MIN_SPEED_ALONE, MIN_SPEED = 0.85, 0.95
#: The highest share of the floor's processor time with 8 threads or more, and of the lean floor's with 16.
MAX_COST, MAX_COST_LEAN = 1.0, 1.2


def _warm_up(cloud: BenchCloud) -> None:
    """Run two processes first, because a fresh cloud is slower."""
    for module in (FLOOR, WORKER):
        pace(cloud, module, threads=8, steps=40)


def throughput(rounds: int, *, official: bool) -> Table:
    """Compare the worker with the floor for each latency and number of threads."""
    where = "official emulators" if official else "embedded cloud"
    table = Table(
        title=f"Steps of 3 charts, on the {where}",
        description="Runs of one step each. The provider answers after 0 or 300 ms. Threads are parallel "
        "steps (`WORKER_CONCURRENCY`).",
        columns=(
            "provider",
            "threads",
            "floor steps/s",
            "worker steps/s",
            "worker : floor",
            "floor CPU ms",
            "worker CPU ms",
            "worker : floor",
        ),
    )
    alone: dict[str, Pairs] = {}
    parallel: dict[str, Pairs] = {}
    with open_cloud(official=official) as (cloud, control):
        _warm_up(cloud)
        for latency in LATENCIES:
            control.delay_charts(latency)
            for place, threads in enumerate(THREADS):
                measure = partial(pace, cloud, threads=threads, steps=STEPS[threads])
                pairs = [_pair(measure, worker_first=bool((place + number) % 2)) for number in range(rounds)]
                provider = f"{1000 * latency:.0f} ms"
                table.rows.append([provider, str(threads), *_cells(pairs)])
                (alone if threads == 1 else parallel)[f"{provider}, {threads} threads"] = pairs
    table.targets.extend(
        [
            _fast_enough(alone, MIN_SPEED_ALONE, f"one thread, {where}"),
            _fast_enough(parallel, MIN_SPEED, f"8 threads and more, {where}"),
            _cheap_enough(parallel, f"8 threads and more, {where}"),
        ]
    )
    return table


def _pair(measure: Callable[[str], Pace], *, worker_first: bool) -> tuple[Pace, Pace]:
    """Measure floor and worker in the given order."""
    if worker_first:
        worker = measure(WORKER)
        return measure(FLOOR), worker
    return measure(FLOOR), measure(WORKER)


def _speeds(pairs: Sequence[tuple[Pace, Pace]]) -> list[float]:
    return [other.steps_per_second / floor.steps_per_second for floor, other in pairs]


def _costs(pairs: Sequence[tuple[Pace, Pace]]) -> list[float]:
    return [other.cpu_ms_per_step / floor.cpu_ms_per_step for floor, other in pairs]


def _cells(pairs: Sequence[tuple[Pace, Pace]]) -> list[str]:
    return [
        median_and_range([floor.steps_per_second for floor, _ in pairs]),
        median_and_range([worker.steps_per_second for _, worker in pairs]),
        median_and_range(_speeds(pairs), 2),
        median_and_range([floor.cpu_ms_per_step for floor, _ in pairs]),
        median_and_range([worker.cpu_ms_per_step for _, worker in pairs]),
        median_and_range(_costs(pairs), 2),
    ]


def _fast_enough(rows: Mapping[str, Pairs], low: float, where: str) -> Target:
    """Judge the row with the lowest share of the floor's steps/s."""
    medians = {name: statistics.median(_speeds(pairs)) for name, pairs in rows.items()}
    worst = min(medians, key=medians.__getitem__)
    return Target(
        wanted=f"at least {low} of the floor's steps/s in each row ({where})",
        measured=f"{medians[worst]:.2f} the lowest ({worst})",
        is_met=medians[worst] >= low,
    )


def _cheap_enough(rows: Mapping[str, Pairs], where: str) -> Target:
    """Judge the row with the highest share of the floor's processor time."""
    medians = {name: statistics.median(_costs(pairs)) for name, pairs in rows.items()}
    worst = max(medians, key=medians.__getitem__)
    return Target(
        wanted=f"at most {MAX_COST} of its processor time in each row ({where})",
        measured=f"{medians[worst]:.2f} the highest ({worst})",
        is_met=medians[worst] <= MAX_COST,
    )


def shares(rounds: int) -> Table:
    """Show what the difference between floor and worker consists of."""
    table = Table(
        title="Where the worker's time goes: steps of 3 charts, 16 threads, 0 ms, on the embedded cloud",
        description="The lean floor makes the floor's calls over the worker's own HTTP connections: what is "
        "between it and the worker is leases, checks, quota, metrics and eleven log lines a step.",
        columns=("what", "steps/s", "of the floor's", "CPU ms", "of the floor's"),
    )
    with open_cloud(official=False) as (cloud, _):
        fixtures = {"CHARTS_API_MODE": "mock", **cloud.fixtures()}
        kinds: dict[str, tuple[str, Mapping[str, str]]] = {
            "floor": (FLOOR, {}),
            "lean floor": (LEAN_FLOOR, {}),
            "worker": (WORKER, {}),
            "worker, charts from files (no call, no quota)": (WORKER, fixtures),
        }
        paces: dict[str, list[Pace]] = {name: [] for name in kinds}
        _warm_up(cloud)
        for number in range(rounds):
            for name in _rotated(list(kinds), number):
                module, settings = kinds[name]
                paces[name].append(pace(cloud, module, threads=16, steps=STEPS[16], settings=settings))
    for name, ones in paces.items():
        pairs = list(zip(paces["floor"], ones, strict=True))
        table.rows.append(
            [
                name,
                median_and_range([one.steps_per_second for one in ones]),
                median_and_range(_speeds(pairs), 2),
                median_and_range([one.cpu_ms_per_step for one in ones]),
                median_and_range(_costs(pairs), 2),
            ]
        )
    ratios = _costs(list(zip(paces["lean floor"], paces["worker"], strict=True)))
    table.targets.append(
        Target(
            wanted=f"at most {MAX_COST_LEAN} of the lean floor's processor time (16 threads, provider 0 ms)",
            measured=median_and_range(ratios, 2),
            is_met=statistics.median(ratios) <= MAX_COST_LEAN,
        )
    )
    return table


def _rotated(names: list[str], by: int) -> list[str]:
    """Rotate the names, so that each comes first once."""
    by %= len(names)
    return names[by:] + names[:by]
