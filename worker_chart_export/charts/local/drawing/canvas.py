"""Draw marks into pixels and a PNG file: Pillow draws whole pixels and texts, aggdraw draws smooth lines.

aggdraw clips only at the edges of its image, and it copies the whole image in and out. So smooth lines are
drawn on a copy of the part of the pane that they cover. Each call makes its own images, so threads share
nothing.

Pillow's own PNG encoder tries five filters for each row and takes most of a chart's time. Most rows
of a chart are similar to the row above them. So the filter `up` alone, with a fast deflate, makes files of
about the same size in a third of the time. A palette would halve the file, but change the colours.
"""

from __future__ import annotations

import struct
import zlib

import aggdraw
import numpy as np
from PIL import Image, ImageChops, ImageDraw

from worker_chart_export.charts.local.primitives.marks import (
    Dots,
    DrawList,
    Gradient,
    GradientFill,
    Polygon,
    Rects,
    Strokes,
    Text,
    clipped,
    stroked_area,
)
from worker_chart_export.charts.local.primitives.text import text_image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_OPAQUE = 255
_UP_FILTER = 2
_FAST, _THOROUGH = 2, 9
#: Readers refuse pictures over 256 KiB. From this size on, a smaller file is worth ten times the time.
_SMALL_ENOUGH = 200 * 1024


def paint(draw_list: DrawList) -> Image.Image:  # noqa: C901  # one case for each kind of mark
    """Draw all marks of `draw_list` in order."""
    image = Image.new("RGB", (draw_list.width, draw_list.height), draw_list.background[:3])
    opaque = ImageDraw.Draw(image)
    # An RGBA drawing on an RGB image mixes colours by their opacity; it is slower.
    translucent = ImageDraw.Draw(image, "RGBA")
    for mark in draw_list.marks:
        match mark:
            case Rects():
                pen = opaque if mark.color[3] == _OPAQUE else translucent
                for left, top, right, bottom in mark.boxes:
                    pen.rectangle((left, top, right - 1, bottom - 1), fill=mark.color)
            case Dots():
                opaque.point(mark.points, fill=mark.color)
            case Text():
                _paint_text(image, mark)
            case Polygon():
                translucent.polygon(mark.points, fill=mark.color)
            case Strokes():
                _paint_strokes(image, mark)
            case GradientFill():
                _paint_gradient_fill(image, mark)
            case _:
                _paint_gradient(image, mark)
    return image


def _paint_gradient(image: Image.Image, mark: Gradient) -> None:
    left, top, right, bottom = mark.box
    shades = np.linspace(mark.top[:3], mark.bottom[:3], bottom - top).round().astype(np.uint8)
    column = Image.frombytes("RGB", (1, bottom - top), shades.tobytes())
    image.paste(column.resize((right - left, bottom - top), Image.Resampling.NEAREST), mark.box)


def _paint_gradient_fill(image: Image.Image, mark: GradientFill) -> None:
    left, top, right, bottom = mark.clip
    size = (right - left, bottom - top)
    if min(size) <= 0:
        return
    first, last = mark.rows
    parts = np.clip((np.arange(top, bottom) - first) / max(last - first, 1.0), 0, 1)[:, None]
    shades = (np.array(mark.colors[0]) * (1 - parts) + np.array(mark.colors[1]) * parts).round()
    column = Image.frombytes("RGBA", (1, size[1]), shades.astype(np.uint8).tobytes())
    outline = Image.new("L", size)
    ImageDraw.Draw(outline).polygon([(x - left, y - top) for x, y in mark.points], fill=_OPAQUE)
    colors = column.resize(size, Image.Resampling.NEAREST)
    mask = ImageChops.multiply(outline, colors.getchannel("A"))
    image.paste(colors.convert("RGB"), mark.clip, mask)


def _paint_strokes(image: Image.Image, mark: Strokes) -> None:
    area = stroked_area(mark)
    if area is None:
        return
    pane = image.crop(area)
    left, top = area[:2]
    smooth = aggdraw.Draw(pane)
    for line in mark.lines:
        points = [part for x, y in line.points for part in (x - left, y - top)]
        smooth.line(points, aggdraw.Pen(line.color[:3], line.width, line.color[3]))
    smooth.flush()
    image.paste(pane, area)


def _paint_text(image: Image.Image, mark: Text) -> None:
    picture = text_image(mark.text, mark.size, bold=mark.bold, italic=mark.italic)
    if picture is None:
        return
    left, top = mark.x + picture.left, mark.y + picture.top
    box = (left, top, left + picture.mask.width, top + picture.mask.height)
    shown = box if mark.clip is None else clipped(box, mark.clip)
    if shown is not None:
        part = (shown[0] - left, shown[1] - top, shown[2] - left, shown[3] - top)
        mask, opacity = picture.mask.crop(part), mark.color[3]
        if opacity < _OPAQUE:
            mask = mask.point(lambda covered: covered * opacity // _OPAQUE)
        image.paste(mark.color[:3], shown, mask)


def encode_png(image: Image.Image) -> bytes:
    """Encode an RGB image as a whole PNG file; the same pixels give the same bytes."""
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)
    pixels = np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(image.height, image.width * 3)
    # Each row is its difference from the row above, after the filter's number.
    rows = np.empty((image.height, image.width * 3 + 1), dtype=np.uint8)
    rows[:, 0] = _UP_FILTER
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    data = zlib.compress(rows.data, _FAST)
    if len(data) > _SMALL_ENOUGH:
        data = zlib.compress(rows.data, _THOROUGH)
    png = SIGNATURE
    for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        png += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png
