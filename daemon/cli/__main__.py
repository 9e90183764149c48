"""`worker-chart-export`, and `python -m daemon.cli`, which is the same."""

from __future__ import annotations

import sys

from daemon.lifecycle.signals import block_stop_signals


def main() -> None:
    """The console script; a stop signal that comes while the daemon's modules are loading is kept for it."""
    if sys.argv[1:2] == ["daemon"]:
        block_stop_signals()
    from daemon.cli.app import main as run  # noqa: PLC0415 - takes most of a second

    run()


if __name__ == "__main__":
    main()
