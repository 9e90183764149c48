"""The figures as tables: on the terminal, and in `docs/benchmarks.md`."""

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
    "httpx",
    "structlog",
    "numpy",
    "pillow",
)
HEAD = """# Benchmarks

How much the worker adds to what its backends cost. The *floor* (`benchmarks/floor.py`) is a bare subscriber
that makes the same calls as one would write them, with Google's clients as they come and httpx, and checks,
renews, counts and validates nothing. It and the worker run one after the other on the same cloud, and their
ratio is what counts: absolute figures are this machine's, on which the cloud shares the cores. The worker
sends its HTTP over connections of its own, which cost less; the *lean floor* (`benchmarks/lean_floor.py`) has
them too.

Written by `{command}` on {when}: {machine}, Python {python}; {packages}.
Medians of {rounds} rounds, ranges in brackets.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One part of the page.

    Attributes:
        title: Its heading.
        words: What is measured, and what is wanted of it.
        columns: The headings.
        rows: Cells as text.
    """

    title: str
    words: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def text(self) -> str:
        """As Markdown."""
        lines = [
            f"## {self.title}",
            "",
            self.words,
            "",
            _row(self.columns),
            _row(["---"] * len(self.columns)),
        ]
        return "\n".join([*lines, *(_row(cells) for cells in self.rows)])


def middle(figures: Sequence[float], digits: int = 1) -> str:
    """`median (least-most)`."""
    least, most = min(figures), max(figures)
    return f"{statistics.median(figures):.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"


def write_page(tables: Sequence[Table], *, command: str, rounds: int, page: Path = PAGE) -> None:
    """Write the whole page anew."""
    head = HEAD.format(
        command=command,
        when=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        rounds=rounds,
    )
    page.write_text(
        "\n\n".join([head.rstrip(), *(table.text() for table in tables)]) + "\n", encoding="utf-8"
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
