"""A volume profile as marks over the price."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker_chart_export.charts.local.drawing.lines import polyline
from worker_chart_export.charts.local.primitives.marks import Strokes, rects

if TYPE_CHECKING:
    from worker_chart_export.charts.catalogue import Color
    from worker_chart_export.charts.local.layout.scale import Scale
    from worker_chart_export.charts.local.primitives.marks import Box, Mark
    from worker_chart_export.charts.local.studies.study import ProfileStyle
    from worker_chart_export.charts.local.studies.volume_profile import VolumeProfile

#: Profile rows up to this height have no gap between them.
_MIN_GAPPED = 3


def profile_marks(style: ProfileStyle, *, scale: Scale, pane: Box) -> list[Mark]:
    """Draw a volume profile: boxes that grow from an edge of the pane, and a line at the point of control."""
    profile = style.profile
    if profile is None:
        return []
    boxes: dict[Color, list[Box]] = {}
    low, high = profile.area
    rows = [round(scale.row(price)) for price in profile.edges.tolist()]
    parts = _parts(profile, style.mode)
    largest = float(parts.sum(axis=0).max()) or 1.0
    for index, (rising, falling) in enumerate(parts.T.tolist()):
        inside = low <= index < high
        colors = style.inside if inside else style.outside
        percent = style.inside_width if inside else style.outside_width
        per_pixel = percent / 100 * (pane[2] - pane[0]) / largest
        from_right = style.inside_from_right if inside else style.outside_from_right
        top, bottom = sorted(rows[index : index + 2])
        bottom = max(top + 1, bottom - 1 if bottom - top > _MIN_GAPPED else bottom)
        pen = 0
        for part, color in zip((rising, falling), colors, strict=True):
            length = round(part * per_pixel)
            left = pane[2] - pen - length if from_right else pane[0] + pen
            boxes.setdefault(color, []).append((left, top, left + length, bottom))
            pen += length
    marks: list[Mark] = [rects(same, color, pane) for color, same in boxes.items()]
    if style.control is not None:
        row = scale.row(style.control.value) + 0.5
        line = ((float(pane[0]), row), (float(pane[2]), row))
        look = style.control
        stroke = polyline(line, color=look.color, width=look.width, style=look.style)
        marks.append(Strokes(clip=pane, lines=(stroke,)))
    return marks


def _parts(profile: VolumeProfile, mode: str) -> np.ndarray:
    """Return the volume of the rising and of the falling part of each row, as two rows."""
    up, down = profile.up, profile.down
    if mode == "Total":
        up, down = up + down, np.zeros_like(up)
    elif mode == "Delta":
        up, down = np.maximum(up - down, 0), np.maximum(down - up, 0)
    return np.vstack((up, down))
