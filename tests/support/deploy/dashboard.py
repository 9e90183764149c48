"""Read a Grafana dashboard as its panels and queries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: The values of Grafana's variables for parsing a query. Several values become a regex.
VARIABLES = {
    "$__rate_interval": "2m",
    "$__range": "3h",
    "$job": "(a|b)",
    "$namespace": ".*",
    "$instance": "(c)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query of a panel or of an annotation.

    Attributes:
        where: The panel's title.
        text: The PromQL with Grafana's variables.
        legend: The legend's format.
    """

    where: str
    text: str
    legend: str

    @property
    def promql(self) -> str:
        """Return the PromQL with values in place of the variables."""
        return substituted(self.text)


def substituted(text: str) -> str:
    """Return a query with values in place of the variables."""
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    return text


def read_dashboard(path: Path) -> dict[str, Any]:
    """Return the whole file."""
    dashboard: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return dashboard


def queries_of(dashboard: Mapping[str, Any]) -> list[Query]:
    """Return all queries in the order of the panels, then those of annotations."""
    found = [
        Query(where=panel["title"], text=target["expr"], legend=target["legendFormat"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    return found + [
        Query(where=note["name"], text=note["target"]["expr"], legend=note["textFormat"])
        for note in dashboard["annotations"]["list"]
        if "target" in note
    ]


def everything_named(value: Any, name: str) -> Iterator[Any]:
    """Return all values of a key anywhere in a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == name:
                yield inner
            yield from everything_named(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from everything_named(inner, name)
