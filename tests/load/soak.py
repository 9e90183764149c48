"""A soak: an even, modest load for a long time; the daemons' memory, descriptors and threads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.report import Table
from tests.load import figures
from tests.load.loads import Load, drip
from tests.load.working import LONGEST_SECONDS, check, daemons_of

if TYPE_CHECKING:
    from tests.chaos.world import World

DAEMONS = Load(runs=1, steps=1)
STEPS_A_SECOND, COPIES, ROWS = 2, 2, 6
MOST_GROWTH_MIB = 10.0
COLUMNS = (
    "after min",
    "steps",
    "not settled",
    "CPU ms a step",
    "cloud's CPU ms a step",
    "resident MiB",
    "descriptors",
    "threads",
    "oldest message, s",
    "leases lost",
    "redeliveries",
)


def soak(minutes: float) -> Table:
    """Publish steps at an even pace; return a table with a row for each interval.

    Raises:
        AssertionError: Something was lost, done twice, or left RUNNING; or a daemon's memory has grown.
    """
    table = Table(
        title=f"A soak of {minutes:g} minutes",
        description=f"{DAEMONS.daemons} daemons, {STEPS_A_SECOND} steps of 1 chart a second, each message "
        f"{COPIES} times.",
        columns=COLUMNS,
    )
    resident, sent = [], 0
    with daemons_of(DAEMONS) as world:
        before = figures.usage(world)
        for row in range(1, ROWS + 1):
            sent += drip(world, a_second=STEPS_A_SECOND, seconds=60 * minutes / ROWS, copies=COPIES)
            used = figures.usage(world).milliseconds_since(before, steps=sent)
            resident.append(figures.numbers(world, "VmRSS"))
            table.rows.append([f"{row * minutes / ROWS:.1f}", str(sent), *_now(world, used, resident[-1])])
            sys.stdout.write(f"{table.rows[-1]}\n")
            sys.stdout.flush()
        world.holds_within(lambda: not world.unacked(), LONGEST_SECONDS)
        check(world)
    grown = max(last - first for first, last in zip(resident[0], resident[-1], strict=True)) / 1024
    assert grown <= MOST_GROWTH_MIB, f"a daemon has grown by {grown:.1f} MiB\n{table.text()}"
    return table


def _now(world: World, used: tuple[str, str], resident: list[int]) -> list[str]:
    return [
        str(world.unacked()),
        *used,
        ", ".join(f"{kib / 1024:.1f}" for kib in resident),
        ", ".join(map(str, figures.descriptors(world))),
        ", ".join(map(str, figures.numbers(world, "Threads"))),
        f"{figures.oldest_seconds(world):.1f}",
        str(figures.leases_lost(world)),
        str(figures.redelivered(world)),
    ]
