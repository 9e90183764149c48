"""The documented facts of Chart-IMG v2: each field, style, study and drawing with its parameters.

The facts are data, `data/chart_img/catalogue.json`: keys, types, defaults, ranges and choices as the provider
documents them. The local renderer takes defaults and checks from here, the template check the same, and
`templates list --studies` prints it. So one table decides what a request body may hold.

Four entries differ from the documentation, because they are obvious misprints there: two parameters of type
`Color2196F3` are colours, the second `UpperLimit.visible` of `Williams %R` is `LowerLimit.visible`, and the
lower limit of the `Money Flow Index` is 20, as on TradingView, and not 80 like the upper one. The key
`extendLines` of `Fib Retracement` is only in the documentation's example.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

from worker_chart_export.charts.whole_numbers import whole_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: Red, green, blue, opacity, each 0 to 255.
Color: TypeAlias = tuple[int, int, int, int]

_HEX = re.compile(r"#([0-9a-fA-F]{6})([0-9a-fA-F]{2})?")
_RGB = re.compile(r"rgba?\((\d{1,3}),(\d{1,3}),(\d{1,3})(?:,(0|1|[01]?\.\d+))?\)")
_FULL = 255
#: The documentation writes `column` as the default of a plot type and `columns` in its choices.
_SAME_CHOICES = {"column": "columns"}


class Kind(Enum):
    """The type of a parameter, by its name in the documentation."""

    BOOLEAN = "Boolean"
    INTEGER = "Integer"
    FLOAT = "Float"
    STRING = "String"
    COLOR = "Color"
    DATETIME = "DateTime (ISO8601)"
    OBJECT = "Object"
    OBJECTS = "Object[]"
    RANGE = "String / Object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One documented parameter.

    Attributes:
        key: Its key in the request body.
        kind: Its type.
        default: The value that the provider uses without it; None if there is none.
        low: Smallest number; None if there is no limit.
        high: Largest number; None if there is no limit.
        choices: The accepted values; empty if there is no list.
        required: Whether the provider refuses a request without it.
        meaning: What it means, as far as the key does not say it.
    """

    key: str
    kind: Kind
    default: Any = None
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    required: bool = False
    meaning: str = ""

    @property
    def expected(self) -> str:
        """The accepted values as text, e.g. `a whole number from 1 to 10`."""
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        return _NAMES[self.kind] + _limits(self.low, self.high)

    def read(self, value: object) -> Any:
        """Return `value` in the parameter's type: int, float, bool, str, `Color` or datetime.

        Whole numbers stored as doubles are whole numbers. Objects are returned as they are.

        Raises:
            ValueError: The value is of another type, out of range, or none of the choices.
        """
        if self.choices and value not in self.choices and isinstance(value, str):
            value = _SAME_CHOICES.get(value, value)
        read = _READERS[self.kind](value)
        # A range is one of the names or an object.
        is_choice = not self.choices or isinstance(read, dict) or read in self.choices
        if read is None or not is_choice:
            raise ValueError(self.expected)
        if isinstance(read, int | float) and not isinstance(read, bool):
            low = -math.inf if self.low is None else self.low
            high = math.inf if self.high is None else self.high
            if not low <= read <= high:
                raise ValueError(self.expected)
        return read


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEntry:
    """One documented study.

    Attributes:
        name: Its name in the request body.
        own_pane: Whether it has a pane of its own, unless `forceOverlay` is true.
        inputs: What can be set in its `input`.
        overrides: What can be set in its `override`.
    """

    name: str
    own_pane: bool
    inputs: Mapping[str, Parameter]
    overrides: Mapping[str, Parameter]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingEntry:
    """One documented drawing.

    Attributes:
        name: Its name in the request body.
        inputs: What can be set in its `input`.
        overrides: What can be set in its `override`.
        levels: The overrides `level1`, `level2` ... of a drawing with levels: their parameters by key.
    """

    name: str
    inputs: Mapping[str, Parameter]
    overrides: Mapping[str, Parameter]
    levels: Mapping[str, Mapping[str, Parameter]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All documented facts.

    Attributes:
        request: The fields of the request body.
        override: The fields of its `override`.
        price_range: The fields of its `override.priceRange`.
        styles: Style -> the fields of `override.style`, e.g. `candleStyle.upColor`.
        studies: The studies by name, in the order of the documentation.
        drawings: The drawings by name.
    """

    request: Mapping[str, Parameter]
    override: Mapping[str, Parameter]
    price_range: Mapping[str, Parameter]
    styles: Mapping[str, Mapping[str, Parameter]]
    studies: Mapping[str, StudyEntry]
    drawings: Mapping[str, DrawingEntry]


@cache
def catalogue() -> Catalogue:
    """Return the documented facts. They are read once."""
    path = files("worker_chart_export").joinpath("data/chart_img/catalogue.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    studies = (
        StudyEntry(
            name=study["name"],
            own_pane=study["own_pane"],
            inputs=_parameters(study["input"]),
            overrides=_parameters(study["override"]),
        )
        for study in data["studies"]
    )
    drawings = (
        DrawingEntry(
            name=drawing["name"],
            inputs=_parameters(drawing["input"]),
            overrides=_parameters(row for row in drawing["override"] if row["type"] != Kind.OBJECT.value),
            levels={
                f"level{number}": _level(**level) for number, level in enumerate(drawing.get("levels", ()), 1)
            },
        )
        for drawing in data["drawings"]
    )
    return Catalogue(
        request=_parameters(data["request"]),
        override=_parameters(data["request.override"]),
        price_range=_parameters(data["request.override.priceRange"]),
        styles={style["style"]: _parameters(style["override.style"]) for style in data["styles"]},
        studies={study.name: study for study in studies},
        drawings={drawing.name: drawing for drawing in drawings},
    )


def _parameters(rows: Iterable[Mapping[str, Any]]) -> dict[str, Parameter]:
    parameters = (
        Parameter(
            key=row["key"],
            kind=(kind := Kind(row["type"])),
            default=_default(row.get("default"), row.get("one_of", ())),
            low=row.get("min"),
            high=row.get("max"),
            # The documentation writes the choices of whole numbers as text.
            choices=tuple(int(one) if kind is Kind.INTEGER else one for one in row.get("one_of", ())),
            required=row.get("required", False),
            meaning=row.get("means", ""),
        )
        for row in rows
    )
    return {parameter.key: parameter for parameter in parameters}


def _level(coeff: float, color: str) -> dict[str, Parameter]:
    return {
        "visible": Parameter(key="visible", kind=Kind.BOOLEAN, default=True),
        "coeff": Parameter(key="coeff", kind=Kind.FLOAT, default=coeff),
        "color": Parameter(key="color", kind=Kind.COLOR, default=color),
    }


def _default(value: Any, choices: Iterable[Any]) -> Any:
    """Return a default of the documentation; `{LAST_PRICE}` and the like depend on the chart."""
    if not isinstance(value, str) or value in choices:
        return value
    return None if value.startswith("{") else _SAME_CHOICES.get(value, value)


def read_color(value: object) -> Color | None:
    """Read `rgb(r,g,b)`, `rgba(r,g,b,a)`, `#rrggbb` or `#rrggbbaa`; return None if it is none of these."""
    if isinstance(value, str) and (match := _HEX.fullmatch(value.strip())):
        red, green, blue = bytes.fromhex(match[1])
        return red, green, blue, int(match[2] or "ff", 16)
    if isinstance(value, str) and (match := _RGB.fullmatch(value.replace(" ", ""))):
        red, green, blue = (int(part) for part in match.groups()[:3])
        opacity = round(_FULL * float(match[4] or 1))
        if max(red, green, blue, opacity) <= _FULL:
            return red, green, blue, opacity
    return None


def read_datetime(value: object) -> datetime | None:
    """Read an ISO 8601 time; without an offset it is UTC. Return None if it is none."""
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return read.replace(tzinfo=UTC) if read is not None and read.tzinfo is None else read


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _limits(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f" of at least {low:.12g}"
    return f" of at most {high:.12g}" if low is None else f" from {low:.12g} to {high:.12g}"


_NAMES = {
    Kind.BOOLEAN: "true or false",
    Kind.INTEGER: "a whole number",
    Kind.FLOAT: "a number",
    Kind.STRING: "a text",
    Kind.COLOR: "a colour like rgb(33,150,243) or #2196f3",
    Kind.DATETIME: "an ISO 8601 time like 2025-01-31T00:00:00Z",
    Kind.OBJECT: "an object",
    Kind.OBJECTS: "a list of objects",
    Kind.RANGE: "a range or an object with from and to",
}
_READERS: dict[Kind, Callable[[object], Any]] = {
    Kind.BOOLEAN: lambda value: value if isinstance(value, bool) else None,
    Kind.INTEGER: whole_number,
    Kind.FLOAT: _number,
    Kind.STRING: lambda value: value if isinstance(value, str) else None,
    Kind.COLOR: read_color,
    Kind.DATETIME: read_datetime,
    Kind.OBJECT: lambda value: value if isinstance(value, dict) else None,
    Kind.OBJECTS: lambda value: value if isinstance(value, list) else None,
    Kind.RANGE: lambda value: value if isinstance(value, str | dict) else None,
}
