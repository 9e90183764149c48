"""`python -m daemon`: run the daemon. Arguments are those of `worker-chart-export daemon`."""

from __future__ import annotations

import sys

from daemon.lifecycle.signals import block_stop_signals

# ruff: noqa: PLC0415 - all other imports come after the stop signals are blocked


def main() -> None:
    """Run the daemon. A stop signal that arrives while its modules load stays pending until it runs."""
    block_stop_signals()
    from daemon.lifecycle.library_defaults import set_library_defaults
    from daemon.lifecycle.standard_streams import protect_standard_streams

    set_library_defaults(is_daemon=True)
    if sys.argv[1:]:
        from daemon.cli.app import main as run_command

        run_command("daemon", called_as="python -m daemon")  # prints the settings or a usage error, and exits
    protect_standard_streams()
    from daemon.exit import exit_now
    from daemon.lifecycle.interpreter import long_lived

    with long_lived():
        from daemon.main import run_daemon

    exit_now(run_daemon())


if __name__ == "__main__":
    main()
