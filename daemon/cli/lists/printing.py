"""Print lists page by page, as lines in columns or as one JSON array."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer

from daemon.cli.output import OutputFormat
from daemon.exit import ExitCode
from daemon.lifecycle.standard_streams import lost_reader
from worker_chart_export.errors import IndexMissing, visible
from worker_chart_export.timing import span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import timedelta


class Row(Protocol):
    """A row of a list."""

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the JSON output."""


R = TypeVar("R", bound=Row)


def print_list(
    pages: Callable[[Any], Iterator[list[R]]],
    columns: Mapping[str, Callable[[R], str]],
    *,
    limit: int | None,
    output: OutputFormat,
) -> None:
    """Open Firestore, and print the rows. The command ends early when nobody reads its output any more.

    Args:
        pages: Reads the rows with a Firestore client.
        columns: Title -> the text of a row there.
        limit: The most rows.
        output: The format.

    Raises:
        SettingsError: The settings are wrong.
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
        Exit: An index is missing.
    """
    from daemon.clients import firestore_client  # noqa: PLC0415 - help does without
    from daemon.settings import FirestoreSettings, load_settings  # noqa: PLC0415 - see above

    settings = load_settings(FirestoreSettings)
    with closing(firestore_client(settings.google_cloud_project, settings.firestore_db)) as client:
        rows = _limited(pages(client), limit)
        try:
            if output is OutputFormat.JSON:
                _print_json(rows)
            else:
                _print_columns(rows, columns)
        except IndexMissing as error:
            typer.echo(
                "error: the index of leases over all runs is missing: deploy deploy/firestore.indexes.json "
                f"({error})",
                err=True,
            )
            raise typer.Exit(ExitCode.REFUSED) from error


def age_text(age: timedelta | None) -> str:
    """Return an age for a column: `2 h 5 min`."""
    return "-" if age is None else span(age.total_seconds())


def _limited(pages: Iterable[list[R]], limit: int | None) -> Iterator[list[R]]:
    left = limit
    for page in pages:
        if left is not None and len(page) >= left:
            yield page[:left]
            return
        yield page
        left = None if left is None else left - len(page)


def _print_json(pages: Iterator[list[R]]) -> None:
    before = "["
    encode = json.JSONEncoder(default=str).encode  # `json.dumps` with an argument makes an encoder each time
    for page in pages:
        if page:
            objects = ",\n".join(encode(row.to_dict()) for row in page)
            typer.echo(f"{before}\n{objects}", nl=False)
            before = ","
        if lost_reader(sys.stdout):
            return
    typer.echo("[]" if before == "[" else "\n]")


def _print_columns(pages: Iterator[list[R]], columns: Mapping[str, Callable[[R], str]]) -> None:
    """Print a line for each row. Columns get wider from page to page, when they have to."""
    widths = [len(title) for title in columns]
    has_title = False
    for page in pages:
        lines = [[visible(text(row)) or "-" for text in columns.values()] for row in page]
        if lines and not has_title:
            lines.insert(0, list(columns))
            has_title = True
        for line in lines:
            widths = [max(width, len(cell)) for width, cell in zip(widths, line, strict=True)]
        if lines:
            typer.echo("\n".join(_in_columns(line, widths) for line in lines))
        if lost_reader(sys.stdout):
            return
    if not has_title:
        typer.echo("nothing found", err=True)


def _in_columns(line: list[str], widths: list[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)]
    return "  ".join([*cells, line[-1]])
