"""The application: all commands, and the exit codes of errors that no command handled."""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import typer

from daemon.cli.lazy import HELP_OPTIONS, LazyCommands, load_command
from daemon.exit import ExitCode
from daemon.lifecycle.standard_streams import protect_standard_streams, write_failure
from worker_chart_export.errors import BackendRefused, BackendUnavailable

app = typer.Typer(
    name="worker-chart-export",
    cls=LazyCommands,
    help="Turn the CHART_EXPORT steps of flow runs into chart PNGs in Cloud Storage.",
    epilog="Try it without any cloud: worker-chart-export demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings=HELP_OPTIONS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow to load, and rarely needed

        typer.echo(f"worker-chart-export {version('worker-chart-export')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Handle the options that come before the name of the command."""


def main(command: str | None = None, *, called_as: str = "worker-chart-export") -> None:
    """Run the command that the arguments name, and exit with its exit code.

    Args:
        command: The command whose arguments these are. None: the first argument names it.
        called_as: How the person called this command, for its usage line.
    """
    protect_standard_streams()
    code: object = ExitCode.OK
    try:
        if command is None:
            app()
        else:
            load_command(command)(prog_name=called_as, **HELP_OPTIONS)
    except SystemExit as end:
        code = end.code
    except Exception as error:  # noqa: BLE001 - the last handler
        problems, code = describe_failure(error)
        for problem in problems:
            typer.echo(f"error: {problem}", err=True)
    sys.stdout.flush()
    if not code and (lost := write_failure(sys.stdout)):
        typer.echo(f"error: the output can't be written: {lost.strerror}", err=True)
        code = ExitCode.JOB_FAILED
    gc.freeze()  # else the end of the process searches all that was imported, for a quarter of a second
    sys.exit(code)  # type: ignore[arg-type]


def describe_failure(error: Exception) -> tuple[list[str], ExitCode]:
    """Return a line for each problem that the error names, and the exit code.

    A traceback is never shown: it could hold secrets, for example API keys.
    """
    from daemon.settings import SettingsError  # noqa: PLC0415 - slow to load
    from worker_chart_export.backends.errors import describe_error  # noqa: PLC0415 - slow to load

    if isinstance(error, SettingsError):
        return error.problems, ExitCode.BAD_SETTINGS
    if isinstance(error, BackendRefused | BackendUnavailable):
        from daemon.cli.places import with_place  # noqa: PLC0415 - slow to load

        return [with_place(error)], ExitCode.REFUSED
    return [f"internal: {describe_error(error)}"], ExitCode.INTERNAL_ERROR
