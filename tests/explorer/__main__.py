"""Explore every interleaving of the core, and print the figures: `python -m tests.explorer`."""

from __future__ import annotations

import argparse
import sys

from tests.explorer.broken import BROKEN, search
from tests.explorer.searches import LONG, SHORT


def main() -> int:
    """Run the searches; return 1 when one finds a violation or does not end."""
    parser = argparse.ArgumentParser(prog="python -m tests.explorer", description=__doc__)
    parser.add_argument("--short", action="store_true", help="only the searches of `make test`")
    parser.add_argument("--seconds", type=float, default=600, help="processor time for one search")
    parser.add_argument("--broken", action="store_true", help="show what goes wrong with broken cores")
    options = parser.parse_args()
    if options.broken:
        for core in BROKEN:
            found = search(core)
            print(f"{core.__name__}: {core.__doc__} {found}", flush=True)  # noqa: T201
        return 0
    code, states, transitions, seconds = 0, 0, 0, 0.0
    for setting in SHORT if options.short else LONG:
        found = setting.search(max_seconds=options.seconds)
        print(f"{setting}: {found}", flush=True)  # noqa: T201 - a command's output
        code |= found.violation is not None or not found.is_complete
        states, transitions = states + found.states, transitions + found.transitions
        seconds += found.seconds
    print(f"{states:,} states, {transitions:,} transitions in {seconds:.0f} s")  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
