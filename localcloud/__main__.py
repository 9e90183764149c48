"""Run the cloud in a process of its own until SIGTERM or SIGINT: `python -m localcloud`."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from typing import TYPE_CHECKING

from localcloud.cloud import DEFAULT_PROJECT, LocalCloud, Ports

if TYPE_CHECKING:
    from collections.abc import Sequence

_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_SERVICES = ("pubsub", "firestore", "storage", "chart_img", "control")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; print `export NAME=value` lines once all services answer.

    Returns:
        The exit code: 0.
    """
    parser = argparse.ArgumentParser(prog="python -m localcloud", description=__doc__)
    parser.add_argument("--project", default=DEFAULT_PROJECT, help="the project id to export")
    for service in _SERVICES:
        option = f"--{service.replace('_', '-')}-port"
        parser.add_argument(option, type=int, default=0, metavar="N", help="0 = any free port")
    options = parser.parse_args(arguments)
    ports = Ports(**{service: getattr(options, f"{service}_port") for service in _SERVICES})
    # `sigwait` instead of a handler: a handler runs only when the main thread executes Python code again,
    # and the system may deliver a signal to any of the servers' threads.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    with LocalCloud.start(project=options.project, ports=ports, report=_print_error) as cloud:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in cloud.environment().items()]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        signal.sigwait(_STOP_SIGNALS)
    return 0


def _print_error(line: str) -> None:
    """Print a line on standard error, in one piece as threads print at the same time."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
