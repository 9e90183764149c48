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
_MIN_CONTRAST, _STEPS = 4.5, 20
#: Luminance at which black and white contrast equally.
_MIDDLE_GREY = 0.18


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


def readable(color: Color, background: Color) -> Color:
    """Return `color`, opaque, and lighter or darker until it contrasts with `background` by 4.5 to 1.

    That is the least contrast for text of the Web Content Accessibility Guidelines 2.1.
    """
    target = 255 if _luminance(background) < _MIDDLE_GREY else 0
    for step in range(_STEPS + 1):
        part = step / _STEPS
        red, green, blue = (round(one + (target - one) * part) for one in color[:3])
        found = (red, green, blue, _FULL)
        if contrast(found, background) >= _MIN_CONTRAST:
            return found
    return found


def contrast(one: Color, other: Color) -> float:
    """Return the contrast of two opaque colours, 1 to 21, as the accessibility guidelines define it."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(color: Color) -> float:
    parts = (one / _FULL for one in color[:3])
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4  # noqa: PLR2004  # as defined
        for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
