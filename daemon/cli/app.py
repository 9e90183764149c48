"""The application: all commands, and the exit codes of errors that no command handled."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from daemon.cli.lazy import LazyCommands
from daemon.exit import ExitCode
from worker_chart_export.errors import BackendRefused, BackendUnavailable

app = typer.Typer(
    name="worker-chart-export",
    cls=LazyCommands,
    help="Turn the CHART_EXPORT steps of flow runs into chart PNGs in Cloud Storage.",
    epilog="Try it without any cloud: worker-chart-export demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow to load, and rarely needed

        typer.echo(f"worker-chart-export {version('worker-chart-export')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Handle the options that come before the name of the command."""


def main() -> None:
    """Run the command that the arguments name, and exit with its exit code."""
    try:
        app()
    except Exception as error:  # noqa: BLE001 - the last handler
        problems, code = describe_failure(error)
        for problem in problems:
            typer.echo(f"error: {problem}", err=True)
        sys.exit(code)


def describe_failure(error: Exception) -> tuple[list[str], ExitCode]:
    """Return a line for each problem that the error names, and the exit code.

    A traceback is never shown: it could hold secrets, for example API keys.
    """
    from daemon.settings import SettingsError  # noqa: PLC0415 - slow to load
    from worker_chart_export.backends.errors import describe_error  # noqa: PLC0415 - slow to load

    if isinstance(error, SettingsError):
        return error.problems, ExitCode.BAD_SETTINGS
    if isinstance(error, BackendRefused | BackendUnavailable):
        return [str(error)], ExitCode.REFUSED
    return [f"internal: {describe_error(error)}"], ExitCode.INTERNAL_ERROR
