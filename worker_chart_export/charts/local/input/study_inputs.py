"""The inputs of studies: what each accepts, and an error for everything else.

A chart drawn with other numbers than the template names is a wrong chart. So a wrong type, a value out of
range and an unknown name all raise `RenderFailed`, which names the study, the input and the expected values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from worker_chart_export.charts.whole_numbers import whole_number
from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The price series that a study can be computed from.
SOURCES = ("open", "high", "low", "close", "hl2", "hlc3", "ohlc4")


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeNumber:
    """An integer input. A float without a fraction counts as one: JSON writers produce such floats."""

    default: int
    low: int = 1
    high: int = 10_000

    @property
    def expected(self) -> str:
        """The accepted values as text."""
        return f"a whole number from {self.low} to {self.high}"

    def read(self, value: Any) -> int | None:
        """Return `value` as an integer; None if it is not accepted."""
        whole = whole_number(value)
        return whole if whole is not None and self.low <= whole <= self.high else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fraction:
    """A number input that may have decimals."""

    default: float
    low: float
    high: float

    @property
    def expected(self) -> str:
        """The accepted values as text."""
        return f"a number from {self.low:g} to {self.high:g}"

    def read(self, value: Any) -> float | None:
        """Return `value` as a float; None if it is not accepted."""
        return float(value) if type(value) in {int, float} and self.low <= value <= self.high else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A text input with fixed values."""

    default: str
    options: tuple[str, ...]

    @property
    def expected(self) -> str:
        """The accepted values as text."""
        return "one of " + ", ".join(self.options)

    def read(self, value: Any) -> str | None:
        """Return `value`; None if it is not accepted."""
        return value if isinstance(value, str) and value in self.options else None


Input: TypeAlias = WholeNumber | Fraction | Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A study's inputs, defaults filled in.

    Attributes:
        values: All inputs by name.
        given: Names that the template itself set.
    """

    values: Mapping[str, int | float | str]
    given: frozenset[str]

    def whole(self, name: str) -> int:
        """Return the value of a `WholeNumber` input."""
        return int(self.values[name])

    def number(self, name: str) -> float:
        """Return the value of a `Fraction` input."""
        return float(self.values[name])

    def text(self, name: str) -> str:
        """Return the value of a `Choice` input."""
        return str(self.values[name])


def read_inputs(study: str, accepted: Mapping[str, Input], given: Mapping[str, Any]) -> Inputs:
    """Check the template's inputs of one study and fill in the defaults.

    Raises:
        RenderFailed: An input is unknown, of the wrong type or out of range.
    """
    values: dict[str, int | float | str] = {name: kind.default for name, kind in accepted.items()}
    for name, value in given.items():
        if name not in accepted:
            known = ", ".join(accepted) or "none"
            raise RenderFailed(
                f"Study {study!r} has no input {name!r} that can be drawn here; known inputs: {known}.",
                study=study,
                input=name,
            )
        read = accepted[name].read(value)
        if read is None:
            raise RenderFailed(
                f"Study {study!r} has input {name!r} = {value!r:.60}, expected {accepted[name].expected}.",
                study=study,
                input=name,
            )
        values[name] = read
    return Inputs(values=values, given=frozenset(given))
