"""`python -m benchmarks`: take all measurements; print tables and write `docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.fleet import local_steps, many_daemons
from benchmarks.limited_run import limited_runs
from benchmarks.meaning import slow_provider
from benchmarks.pace_tables import shares, throughput
from benchmarks.report import verdicts, write_page
from benchmarks.work_tables import big_runs, costs, render_pool, render_times
from tests.support.cloud.clouds import OfficialEmulatorsMissing, official_emulators

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.report import Table

PARTS: dict[str, Callable[[int], Table]] = {
    "slow-provider": slow_provider,
    "embedded": partial(throughput, official=False),
    "shares": shares,
    "big-run": big_runs,
    "limited-run": limited_runs,
    "local": local_steps,
    "daemons": many_daemons,
    "rendering": render_times,
    "renderers": render_pool,
    "process": costs,
    "official": partial(throughput, official=True),
}


def _require_emulators() -> None:
    """Exit now, not after half an hour, if the official emulators are missing."""
    try:
        with official_emulators():
            return
    except OfficialEmulatorsMissing as error:
        sys.exit(
            f"{error}\nOr leave them out: --only {' '.join(name for name in PARTS if name != 'official')}"
        )


def main() -> int:
    """Run the chosen measurements; write the page if all of them were chosen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken")
    parser.add_argument("--only", nargs="+", choices=list(PARTS))
    options = parser.parse_args()
    parts = options.only or list(PARTS)
    if "official" in parts:
        _require_emulators()
    tables = []
    for name in parts:
        tables.append(PARTS[name](options.rounds))
        sys.stdout.write(f"{tables[-1].text()}\n\n")
        sys.stdout.flush()
    sys.stdout.write(f"{verdicts(tables)}\n")
    if not options.only:
        write_page(tables, command=f"make bench ROUNDS={options.rounds}", rounds=options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
