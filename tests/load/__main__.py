"""Work off heavy loads with real daemons and print their figures: `python -m tests.load`.

After each load the invariants of `tests/chaos` are checked. The exit code is 1 if a step was lost, done
twice, or left RUNNING.
"""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import replace

from benchmarks.report import Table
from tests.load.loads import LOADS, Load
from tests.load.soak import soak
from tests.load.working import COLUMNS, work

#: So many characters of the violations are shown.
SHOWN = 1000
CHANGED = ("runs", "steps", "charts", "copies", "daemons", "threads")


def main() -> int:
    """Run the chosen loads; return 1 if one of them fails."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the daemons end too
    names = options.only or ([] if options.soak else list(LOADS))
    table = Table(
        title="Under load",
        description="Steps of runs on the embedded cloud, whose provider answers at once.",
        columns=COLUMNS,
    )
    failed = False
    for name in names:
        row, violations = work(name, _changed(LOADS[name], options))
        table.rows.append(row)
        failed = failed or bool(violations)
        _print(f"{name}: {f'FAILED: {violations:.{SHOWN}}' if violations else 'violations 0'}")
    if names:
        _print(f"{table.text()}\n")
    if options.soak:
        _print(soak(options.soak).text())
    return int(failed)


def _changed(load: Load, options: argparse.Namespace) -> Load:
    given = {name: value for name in CHANGED if (value := getattr(options, name))}
    return replace(load, **given)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(LOADS))
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="a soak instead")
    for name in CHANGED:
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"other {name} than the load's own")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
