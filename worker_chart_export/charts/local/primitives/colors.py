"""Colours: of the two themes, of studies by default, and those that a template overrides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from worker_chart_export.errors import RenderFailed

#: Red, green, blue, opacity, each 0 to 255.
Color: TypeAlias = tuple[int, int, int, int]

BLUE: Color = (33, 150, 243, 255)
ORANGE: Color = (255, 109, 0, 255)
RED: Color = (255, 82, 82, 255)
PURPLE: Color = (126, 87, 194, 255)
YELLOW: Color = (240, 178, 30, 255)
GREEN: Color = (67, 160, 71, 255)
GREY: Color = (120, 123, 134, 255)
FALLING_VOLUME: Color = (247, 82, 95, 128)
RISING_VOLUME: Color = (34, 171, 148, 128)
#: MACD histogram: above zero growing, above shrinking, below rising, below falling.
HISTOGRAM: tuple[Color, ...] = (
    (38, 166, 154, 255),
    (178, 223, 219, 255),
    (255, 205, 210, 255),
    (255, 82, 82, 255),
)
PROFILE_OUTSIDE: tuple[Color, Color] = ((21, 146, 230, 77), (251, 193, 35, 77))
PROFILE_INSIDE: tuple[Color, Color] = ((21, 146, 230, 179), (251, 193, 35, 179))
CONTROL: Color = (255, 0, 0, 255)

_HEX = re.compile(r"#([0-9a-fA-F]{6})([0-9a-fA-F]{2})?")
_RGB = re.compile(r"rgba?\((\d{1,3}),(\d{1,3}),(\d{1,3})(?:,(0|1|[01]?\.\d+))?\)")
_FULL = 255
#: Brightness (0 to 255) from which black is easier to read than white.
_BRIGHT = 150


def with_opacity(color: Color, opacity: float) -> Color:
    """Return `color` with `opacity`, 0 to 1."""
    return (*color[:3], round(_FULL * opacity))


def parse_color(text: object, *, where: str) -> Color:
    """Read `rgb(r,g,b)`, `rgba(r,g,b,a)`, `#rrggbb` or `#rrggbbaa`.

    Raises:
        RenderFailed: It is none of these; `where` names the place in the template.
    """
    if isinstance(text, str) and (match := _HEX.fullmatch(text.strip())):
        red, green, blue = bytes.fromhex(match[1])
        return red, green, blue, int(match[2] or "ff", 16)
    if isinstance(text, str) and (match := _RGB.fullmatch(text.replace(" ", ""))):
        red, green, blue = (int(part) for part in match.groups()[:3])
        opacity = round(_FULL * float(match[4] or 1))
        if max(red, green, blue, opacity) <= _FULL:
            return red, green, blue, opacity
    raise RenderFailed(f"{where} is {text!r:.60}, expected a colour like rgb(33,150,243) or #2196f3.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colours of everything except studies.

    Attributes:
        top: Background at the upper edge of a pane; `bottom` at its lower edge, with a gradient between.
        axis: Background of the axes.
        grid: Grid lines.
        separator: Lines between panes and axes.
        text: Axis texts and study names; `strong` for the symbol and for years.
        rising: Bars that closed at or above their open; `falling` the others.
        line: Price line of the styles `line` and `area`.
    """

    top: Color
    bottom: Color
    axis: Color
    grid: Color
    separator: Color
    text: Color
    strong: Color
    rising: Color
    falling: Color
    line: Color


THEMES = {
    "dark": Theme(
        top=(24, 28, 39, 255),
        bottom=(19, 23, 34, 255),
        axis=(19, 23, 34, 255),
        grid=(35, 39, 49, 255),
        separator=(52, 57, 71, 255),
        text=(178, 181, 190, 255),
        strong=(232, 235, 242, 255),
        rising=(8, 153, 129, 255),
        falling=(242, 54, 69, 255),
        line=(41, 98, 255, 255),
    ),
    "light": Theme(
        top=(255, 255, 255, 255),
        bottom=(255, 255, 255, 255),
        axis=(255, 255, 255, 255),
        grid=(240, 243, 250, 255),
        separator=(209, 212, 220, 255),
        text=(80, 83, 94, 255),
        strong=(19, 23, 34, 255),
        rising=(8, 153, 129, 255),
        falling=(242, 54, 69, 255),
        line=(41, 98, 255, 255),
    ),
}


def text_on(background: Color) -> Color:
    """Return black or white, whichever is easier to read on `background`."""
    red, green, blue, _ = background
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > _BRIGHT
    return (19, 23, 34, 255) if bright else (255, 255, 255, 255)
