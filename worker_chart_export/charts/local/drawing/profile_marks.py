"""A volume profile as rows of boxes that grow from the right edge of the price pane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.primitives.marks import rects

if TYPE_CHECKING:
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.colors import Color
    from worker_chart_export.charts.local.primitives.marks import Box, Mark
    from worker_chart_export.charts.local.studies.study import ProfileStyle
    from worker_chart_export.charts.local.studies.volume_profile import VolumeProfile

#: The longest row's part of the pane's width.
_WIDTH = 0.3
#: Rows up to this height have no gap between them.
_MIN_GAPPED = 3


def profile_marks(style: ProfileStyle, *, scale: Scale, pane: Box) -> list[Mark]:
    """The rows, faint outside the value area, and the line at the point of control."""
    if style.profile is None:
        return []
    boxes: dict[Color, list[Box]] = {}
    low, high = style.profile.area
    for index, parts in enumerate(_lengths(style.profile, style.mode, _WIDTH * (pane[2] - pane[0]))):
        colors = style.inside if low <= index < high else style.outside
        top, bottom = _rows(style.profile, index, scale)
        right = pane[2]
        for length, color in zip(parts, colors, strict=True):
            if length:
                boxes.setdefault(color, []).append((right - length, top, right, bottom))
                right -= length
    row = round(scale.row(style.profile.control_price))
    control = rects([(pane[0], row - 1, pane[2], row + 1)], style.control, pane)
    return [*(rects(found, color, pane) for color, found in boxes.items()), control]


def _lengths(profile: VolumeProfile, mode: str, longest: float) -> list[tuple[int, int]]:
    """Pixel lengths of the rising and the falling part of each row."""
    first, second = profile.up, profile.down
    if mode == "Total":
        first, second = first + second, np.zeros_like(first)
    elif mode == "Delta":
        first, second = np.maximum(first - second, 0), np.maximum(second - first, 0)
    size = float((first + second).max())
    per_pixel = longest / size if size else 0.0
    pairs = zip((first * per_pixel).tolist(), (second * per_pixel).tolist(), strict=True)
    return [(round(one), round(other)) for one, other in pairs]


def _rows(profile: VolumeProfile, index: int, scale: Scale) -> tuple[int, int]:
    """Pixel rows of one profile row, with a gap to the row below where there is room for one."""
    top = round(scale.row(float(profile.edges[index + 1])))
    bottom = round(scale.row(float(profile.edges[index])))
    return top, max(top + 1, bottom - 1 if bottom - top > _MIN_GAPPED else bottom)
