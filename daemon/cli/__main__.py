"""The entry point of `worker-chart-export` and of `python -m daemon.cli`."""

from __future__ import annotations

import sys

from daemon.lifecycle.signals import block_stop_signals


def main() -> None:
    """Run the command that the arguments name.

    For the command `daemon`, stop signals are blocked first: one that arrives during the slow imports stays
    pending, and the daemon handles it once it runs.
    """
    is_daemon = sys.argv[1:2] == ["daemon"]
    if is_daemon:
        block_stop_signals()
    from daemon.lifecycle.library_defaults import set_library_defaults  # noqa: PLC0415 - see above

    set_library_defaults(is_daemon=is_daemon)
    from daemon.cli.app import main as run  # noqa: PLC0415 - takes most of a second

    run()


if __name__ == "__main__":
    main()
