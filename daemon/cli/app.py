"""`worker-chart-export`: the sub-commands put together, and the last door for their errors."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from daemon.cli.lazy import LateCommands
from daemon.exit import ExitCode

app = typer.Typer(
    name="worker-chart-export",
    cls=LateCommands,
    help="Turn the CHART_EXPORT steps of flow runs into chart PNGs in Cloud Storage.",
    epilog="Try it without any cloud: worker-chart-export demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow to load, and seldom asked for

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
    except SystemExit as end:
        return int(end.code or 0)
    except Exception as error:  # noqa: BLE001 - the last door
        from daemon.cli.last_words import last_words  # noqa: PLC0415 - it takes long to load

        problems, code = last_words(error)
        for problem in problems:
            typer.echo(f"error: {problem}", err=True)
        return code
    return ExitCode.OK
