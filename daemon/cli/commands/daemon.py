"""`daemon`: run the daemon, or show what it would run with."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.exit import exit_now
from daemon.main import run_daemon
from daemon.settings.daemon import Settings, effective_settings, load_settings
from daemon.tracing.setup import Tracing

NAME = "daemon"
EXAMPLES = "Examples: worker-chart-export daemon | worker-chart-export daemon --check"


def command(
    check: Annotated[bool, typer.Option("--check", help="Print the effective settings and exit.")] = False,
) -> None:
    """Run the daemon (the same as python -m daemon); settings come from the environment.

    The first Ctrl-C or SIGTERM lets running steps finish for DRAIN_SECONDS, the
    second stops at once.

    Exit code 0: clean stop. 2: bad settings. 3: the subscription is missing or
    forbidden. 4: the drain ran out of time. 5: an internal error.
    """
    if not check:
        exit_now(run_daemon())
    settings = load_settings(Settings)
    Tracing(settings)  # its own variables are read once it is on
    for name, value in effective_settings(settings).items():
        typer.echo(f"{name}={value}")
