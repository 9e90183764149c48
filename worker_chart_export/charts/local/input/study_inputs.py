"""The inputs of a study, as its formula reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.charts.catalogue import StudyEntry
    from worker_chart_export.charts.local.input.candles import Candles, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A study's inputs, defaults filled in.

    Attributes:
        study: Chart-IMG's name of the study, for messages.
        values: All inputs by name, in the table's order.
    """

    study: str
    values: dict[str, int | float | bool | str]

    def length(self, name: str) -> int:
        """Return a number of bars, at least 1.

        Raises:
            RenderFailed: It is below 1. The documented ranges of some studies allow that.
        """
        value = self.whole(name)
        if value < 1:
            raise RenderFailed(
                f"Study {self.study!r} has input {name!r} = {value}, expected at least 1 bar.",
                study=self.study,
                input=name,
            )
        return value

    def whole(self, name: str) -> int:
        """Return a whole number."""
        return int(self.values[name])

    def number(self, name: str) -> float:
        """Return a number."""
        return float(self.values[name])

    def text(self, name: str) -> str:
        """Return a choice."""
        return str(self.values[name])

    def flag(self, name: str) -> bool:
        """Return a yes or no."""
        return bool(self.values[name])

    def source(self, name: str, bars: Candles) -> Series:
        """Return the price series that an input names: open, high, low, close, hl2, hlc3 or ohlc4."""
        return bars.price(self.text(name))


def read_inputs(entry: StudyEntry, given: Mapping[str, Any]) -> Inputs:
    """Return the inputs of one study in their own types, defaults filled in.

    `read_options` has checked them.
    """
    values = {
        name: parameter.read(given.get(name, parameter.default)) for name, parameter in entry.inputs.items()
    }
    return Inputs(study=entry.name, values=values)
