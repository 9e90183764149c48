"""An observer that keeps the facts which the work adds to its stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.observability.observers import Observer

if TYPE_CHECKING:
    from worker_chart_export.observability.observers import About


class Facts(Observer):
    """Keeps all facts, of any stage."""

    def __init__(self) -> None:
        self.facts: dict[str, str | int] = {}

    def annotated(self, about: About) -> None:
        """Keep them."""
        self.facts |= about
