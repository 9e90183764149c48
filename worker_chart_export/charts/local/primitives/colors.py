"""The colours of the two themes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_chart_export.charts.catalogue import Color

GREY: Color = (120, 123, 134, 255)
_FULL = 255
#: Brightness (0 to 255) from which black is easier to read than white.
_BRIGHT = 150


def with_opacity(color: Color, opacity: float) -> Color:
    """Return `color` with `opacity`, 0 to 1."""
    return (*color[:3], round(_FULL * opacity))


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
