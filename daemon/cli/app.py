"""`worker-chart-export`: the sub-commands put together, and the last door for their errors."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from daemon.cli import daemon, demo, emulators, publish, run_local, templates
from daemon.exit_codes import ExitCode
from daemon.settings import SettingsError
from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.retry import plain_words

app = typer.Typer(
    name="worker-chart-export",
    help="Turns CHART_EXPORT steps of a flow run into chart PNGs in Cloud Storage.",
    epilog="Try it without any cloud: worker-chart-export demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
for module in (demo, daemon, emulators, run_local, publish):
    app.command(name=module.NAME, epilog=module.EXAMPLES)(module.command)
app.add_typer(templates.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"worker-chart-export {version('worker-chart-export')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command's name."""


def main() -> None:
    """Run the command that the arguments name, and leave with its exit code."""
    sys.exit(_run())


def _run() -> int:
    try:
        app()
    except SettingsError as error:
        return _say(error.problems, ExitCode.BAD_SETTINGS)
    except (BackendRefused, BackendUnavailable) as error:
        return _say([str(error)], ExitCode.REFUSED)
    except SystemExit as end:
        return int(end.code or 0)
    except Exception as error:  # noqa: BLE001 - a traceback would show what no log may hold, keys among it
        return _say([f"internal: {plain_words(error)}"], ExitCode.INTERNAL_ERROR)
    return ExitCode.OK


def _say(problems: list[str], code: ExitCode) -> int:
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    return code
