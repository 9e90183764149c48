"""Parse the filters of lists: statuses and error codes, separated by commas."""

from __future__ import annotations

from enum import StrEnum

import typer

from worker_chart_export.errors import ErrorCode, shown


def statuses_of(text: str | None, known: type[StrEnum]) -> frozenset[str]:
    """Return the statuses, in any case. None: no filter.

    Raises:
        BadParameter: One of them does not exist.
    """
    return _choices(text, known, option="--status")


def codes_of(text: str | None) -> frozenset[str]:
    """Return the error codes, in any case. None: no filter.

    Raises:
        BadParameter: One of them does not exist.
    """
    return _choices(text, ErrorCode, option="--code")


def _choices(text: str | None, known: type[StrEnum], *, option: str) -> frozenset[str]:
    chosen = [] if text is None else [name.strip().upper() for name in text.split(",")]
    for name in chosen:
        if name not in set(known):
            raise typer.BadParameter(f"{option}: expected some of {', '.join(known)}, got {shown(name)}")
    return frozenset(chosen)
