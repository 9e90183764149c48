"""The inputs of a study, checked against the documented table.

A chart drawn with other numbers than the template names is a wrong chart. So a wrong type, a value out of
range and an unknown name all raise `RenderFailed`, which names the study, the input and the expected values.
"""

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
    """Check the template's inputs of one study and fill in the defaults.

    Raises:
        RenderFailed: An input is unknown, of the wrong type or out of range.
    """
    values = {name: parameter.default for name, parameter in entry.inputs.items()}
    for name, value in given.items():
        if name not in entry.inputs:
            known = ", ".join(entry.inputs) or "none"
            raise RenderFailed(
                f"Study {entry.name!r} has no input {name!r:.60}; known inputs: {known}.",
                study=entry.name,
                input=name,
            )
        try:
            values[name] = entry.inputs[name].read(value)
        except ValueError as error:
            raise RenderFailed(
                f"Study {entry.name!r} has input {name!r} = {value!r:.60}, expected {error}.",
                study=entry.name,
                input=name,
            ) from error
    return Inputs(study=entry.name, values=values)
