"""Study inputs: what each accepts, and a refusal for anything that could not be honoured.

A chart drawn with other numbers than the template asks for is a wrong chart, so a wrong type, a value out of
range and an unknown name all raise `RenderFailed` with the study, the input and what was expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from worker_chart_export.errors import RenderFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The price series a study may be computed from.
SOURCES = ("open", "high", "low", "close", "hl2", "hlc3", "ohlc4")


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeNumber:
    """An integer input; a float without a fraction, as JSON writers produce it, counts."""

    default: int
    low: int = 1
    high: int = 10_000

    @property
    def expected(self) -> str:
        """The range in words."""
        return f"a whole number from {self.low} to {self.high}"

    def accepts(self, value: Any) -> bool:
        """Whether `value` is such a number."""
        if isinstance(value, float):
            return value.is_integer() and self.low <= value <= self.high
        return type(value) is int and self.low <= value <= self.high

    def read(self, value: Any) -> int:
        """The accepted value."""
        return int(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fraction:
    """A number input that may have decimals."""

    default: float
    low: float
    high: float

    @property
    def expected(self) -> str:
        """The range in words."""
        return f"a number from {self.low:g} to {self.high:g}"

    def accepts(self, value: Any) -> bool:
        """Whether `value` is such a number."""
        return type(value) in {int, float} and self.low <= value <= self.high

    def read(self, value: Any) -> float:
        """The accepted value."""
        return float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A text input with fixed values."""

    default: str
    options: tuple[str, ...]

    @property
    def expected(self) -> str:
        """The options in words."""
        return "one of " + ", ".join(self.options)

    def accepts(self, value: Any) -> bool:
        """Whether `value` is one of them."""
        return isinstance(value, str) and value in self.options

    def read(self, value: Any) -> str:
        """The accepted value."""
        return str(value)


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
        """The value of a `WholeNumber` input."""
        return int(self.values[name])

    def number(self, name: str) -> float:
        """The value of a `Fraction` input."""
        return float(self.values[name])

    def text(self, name: str) -> str:
        """The value of a `Choice` input."""
        return str(self.values[name])


def read_inputs(study: str, accepted: Mapping[str, Input], given: Mapping[str, Any]) -> Inputs:
    """Check the template's inputs of one study and fill in the defaults.

    Raises:
        RenderFailed: An input is unknown, of the wrong type or out of range.
    """
    for name, value in given.items():
        kind = accepted.get(name)
        if kind is None:
            known = ", ".join(accepted) or "none"
            raise RenderFailed(
                f"Study {study!r} has no input {name!r} that can be drawn here; known inputs: {known}.",
                study=study,
                input=name,
            )
        if not kind.accepts(value):
            raise RenderFailed(
                f"Study {study!r} has input {name!r} = {value!r:.60}, expected {kind.expected}.",
                study=study,
                input=name,
            )
    values = {name: kind.read(given.get(name, kind.default)) for name, kind in accepted.items()}
    return Inputs(values=values, given=frozenset(given))
