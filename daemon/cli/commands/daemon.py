"""The command `daemon`: run the daemon, or print its settings."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from daemon.cli.output import examples
from daemon.exit import exit_now
from daemon.lifecycle.interpreter import long_lived

EXAMPLES = examples("daemon", "daemon --check")


def command(
    check: Annotated[bool, typer.Option("--check", help="Print the effective settings and exit.")] = False,
) -> None:
    """Run the daemon, like python -m daemon. Settings come from the environment.

    The first Ctrl-C, SIGTERM or SIGHUP lets running steps finish for
    DRAIN_SECONDS. The second one stops at once.

    Exit code 0: clean stop. 2: bad settings. 3: the subscription is missing or
    forbidden. 4: the drain ran out of time. 5: an internal error.
    """
    with long_lived():
        from daemon.main import run_daemon
        from daemon.settings import Settings, effective_settings, load_settings, misspelt_settings
        from daemon.tracing.setup import Tracing

    if not check:
        exit_now(run_daemon())
    for warning in misspelt_settings(os.environ):
        typer.echo(f"warning: {warning}", err=True)
    settings = load_settings(Settings)
    Tracing(settings)  # checks the OTEL_* variables
    for name, value in effective_settings(settings).items():
        typer.echo(f"{name}={value}")
