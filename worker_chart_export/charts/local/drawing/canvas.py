"""Marks into pixels, with Pillow for whole-pixel marks and text, and aggdraw for smooth lines.

aggdraw clips at the edges of its image and nowhere else, and copies the whole image in and out. So smooth
lines are drawn on a copy of the part of their pane that they touch. Every call makes its own images: threads
share nothing.
"""

from __future__ import annotations

import aggdraw
import numpy as np
from PIL import Image, ImageDraw

from worker_chart_export.charts.local.primitives.marks import (
    Dots,
    DrawList,
    Gradient,
    Mark,
    Polygon,
    Rects,
    Strokes,
    Text,
    stroked_area,
)
from worker_chart_export.charts.local.primitives.text import text_image

_OPAQUE = 255


def paint(draw_list: DrawList) -> Image.Image:
    """Draw all marks of `draw_list` in order."""
    canvas = _Canvas(draw_list)
    for mark in draw_list.marks:
        canvas.draw(mark)
    return canvas.image


class _Canvas:
    def __init__(self, draw_list: DrawList) -> None:
        self.image = Image.new("RGB", (draw_list.width, draw_list.height), draw_list.background[:3])
        self._opaque = ImageDraw.Draw(self.image)
        # An RGBA drawing on an RGB image lays colours over what is there by their opacity; it is slower.
        self._glaze = ImageDraw.Draw(self.image, "RGBA")

    def draw(self, mark: Mark) -> None:
        match mark:
            case Rects():
                self._rects(mark)
            case Dots():
                self._opaque.point(mark.points, fill=mark.color[:3])
            case Text():
                self._text(mark)
            case Polygon():
                self._glaze.polygon(mark.points, fill=mark.color)
            case Strokes():
                self._strokes(mark)
            case Gradient():
                self._gradient(mark)

    def _gradient(self, mark: Gradient) -> None:
        left, top, right, bottom = mark.box
        shades = np.linspace(mark.top[:3], mark.bottom[:3], bottom - top).round().astype(np.uint8)
        column = Image.frombytes("RGB", (1, bottom - top), shades.tobytes())
        self.image.paste(column.resize((right - left, bottom - top), Image.Resampling.NEAREST), mark.box)

    def _rects(self, mark: Rects) -> None:
        pen, fill = (self._opaque, mark.color[:3]) if mark.color[3] == _OPAQUE else (self._glaze, mark.color)
        for left, top, right, bottom in mark.boxes:
            pen.rectangle((left, top, right - 1, bottom - 1), fill=fill)

    def _strokes(self, mark: Strokes) -> None:
        area = stroked_area(mark)
        if area is None:
            return
        pane = self.image.crop(area)
        left, top = area[:2]
        smooth = aggdraw.Draw(pane)
        for line in mark.lines:
            points = [part for x, y in line.points for part in (x - left, y - top)]
            smooth.line(points, aggdraw.Pen(line.color[:3], line.width, line.color[3]))
        smooth.flush()
        self.image.paste(pane, area)

    def _text(self, mark: Text) -> None:
        word = text_image(mark.text, mark.size)
        if word is not None:
            self.image.paste(mark.color[:3], (mark.x + word.left, mark.y + word.top), word.mask)
