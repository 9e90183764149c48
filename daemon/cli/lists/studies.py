"""List the studies and drawings that a template can name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from daemon.cli.output import OutputFormat
from worker_chart_export.charts.catalogue import DrawingEntry, StudyEntry, catalogue

if TYPE_CHECKING:
    from worker_chart_export.charts.catalogue import Parameter


def list_studies(output: OutputFormat) -> None:
    """Print the documented studies and drawings with their inputs."""
    table = catalogue()
    entries: list[StudyEntry | DrawingEntry] = [*table.studies.values(), *table.drawings.values()]
    if output is OutputFormat.JSON:
        rows = [
            {
                "kind": "drawing" if isinstance(entry, DrawingEntry) else "study",
                "name": entry.name,
                "input": {key: _described(one) for key, one in entry.inputs.items()},
                "override": {key: _described(one) for key, one in entry.overrides.items()},
            }
            for entry in entries
        ]
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    for entry in entries:
        place = "drawing"
        if isinstance(entry, StudyEntry):
            place = "own pane" if entry.own_pane else "over the price"
        typer.echo(f"{entry.name}  ({place})")
        for key, one in entry.inputs.items():
            meaning = f" {one.meaning}," if one.meaning and one.meaning != key else ""
            typer.echo(f"    {key}:{meaning} {one.expected}{_default(one)}")


def _default(parameter: Parameter) -> str:
    return "" if parameter.default is None else f", default {parameter.default}"


def _described(parameter: Parameter) -> dict[str, Any]:
    return {
        "type": parameter.kind.value,
        "expected": parameter.expected,
        "default": parameter.default,
        "means": parameter.meaning,
    }
