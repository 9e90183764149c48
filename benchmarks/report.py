"""Tables of figures, for the terminal and for `docs/benchmarks.md`."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from benchmarks.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGE = ROOT / "docs" / "benchmarks.md"
PACKAGES = (
    "google-cloud-pubsub",
    "google-cloud-firestore",
    "google-cloud-storage",
    "grpcio",
    "urllib3",
    "requests",
    "structlog",
    "numpy",
    "pillow",
    "matplotlib",
)
#: Findings from profiling, written by hand.
FINDINGS = ROOT / "benchmarks" / "findings.md"
HEAD = ROOT / "benchmarks" / "head.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound that one figure must meet.

    Attributes:
        wanted: A description with the bound.
        measured: The figure.
        is_met: True if the figure is within the bound.
    """

    wanted: str
    measured: str
    is_met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One part of the page.

    Attributes:
        title: The heading.
        words: What is measured.
        columns: The headings.
        rows: Cells as text.
        targets: Bounds that the figures must meet.
    """

    title: str
    description: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def text(self) -> str:
        """Format the table as Markdown."""
        return "\n".join([f"## {self.title}", "", self.description, "", *_grid(self.columns, self.rows)])


def median_and_range(figures: Sequence[float], digits: int = 1) -> str:
    """Format figures as `median (lowest-highest)`."""
    low, high = min(figures), max(figures)
    return f"{statistics.median(figures):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def write_page(tables: Sequence[Table], *, command: str, rounds: int, page: Path = PAGE) -> None:
    """Write the whole page. The first table comes before the explanations."""
    head = HEAD.read_text(encoding="utf-8").format(
        command=command,
        when=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        rounds=rounds,
    )
    first, *others = tables
    parts = [first.text(), head.rstrip(), verdicts(tables), *(table.text() for table in others)]
    page.write_text(
        "\n\n".join(["# Benchmarks", *parts, FINDINGS.read_text(encoding="utf-8")]), encoding="utf-8"
    )


def verdicts(tables: Sequence[Table]) -> str:
    """Format the bounds of all tables, and whether they are met, as Markdown."""
    rows = [
        (target.wanted, target.measured, "yes" if target.is_met else "**no**")
        for table in tables
        for target in table.targets
    ]
    return "\n".join(["## Bounds", "", *_grid(("wanted", "measured", "met"), rows)])


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(columns), _row(["---"] * len(columns)), *(_row(cells) for cells in rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
