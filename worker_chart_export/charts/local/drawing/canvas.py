"""Draw marks into pixels and a PNG file: Pillow draws whole pixels and texts, aggdraw draws smooth lines.

aggdraw clips only at the edges of its image, and it copies the whole image in and out. So smooth lines are
drawn on a copy of the part of the pane that they cover. Each call makes its own images, so threads share
nothing.

Pillow's own PNG encoder tries five filters for each row and takes most of a chart's time. Most rows
of a chart are similar to the row above them. So the filter `up` alone makes files of about the same size.
zlib-ng deflates them in half of the time that zlib takes, and smaller by a twentieth to a tenth. A palette
halves the file, but changes the colours a little. So only a picture that would be too large for its readers
gets one.
"""

from __future__ import annotations

import struct
from itertools import groupby
from typing import TYPE_CHECKING

import aggdraw
import numpy as np
from PIL import Image, ImageChops, ImageDraw
from zlib_ng import zlib_ng as zlib

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
#: Higher levels of deflate make a file of a chart smaller by a thirtieth, for twice the time and more.
_LEVEL = 3
#: A sample of bands tells the size of a file before it is made.
_BAND_ROWS, _BANDS, _SAMPLING_ERROR = 16, 8, 0.1
#: Charts are deflated to a tenth or less. No sample is needed if that is enough in any case.
_USUAL_RATIO = 8
#: A palette is chosen from every fifth column. The pixels between have hardly another colour.
_PALETTE_COLUMNS = 5
_RGB, _PALETTE = 2, 3
#: Readers refuse larger pictures.
MAX_PNG_BYTES = 256 * 1024
#: Numbers of colours and the bits of a pixel, tried in this order.
_PALETTES = ((256, 8), (64, 8), (32, 8), (12, 4))


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
    left, first, right, bottom = mark.box
    shades = np.linspace(mark.top[:3], mark.bottom[:3], bottom - first).round().astype(int).tolist()
    for (red, green, blue), rows in groupby(shades):
        end = first + sum(1 for _ in rows)
        image.paste((red, green, blue), (left, first, right, end))
        first = end


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
        path = aggdraw.Path()
        for first, *others in line.pieces:
            path.moveto(first[0] - left, first[1] - top)
            for x, y in others:
                path.lineto(x - left, y - top)
        smooth.line(path, aggdraw.Pen(line.color[:3], line.width, line.color[3]))
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
        mask, opacity = picture.mask, mark.color[3]
        if shown != box:
            mask = mask.crop((shown[0] - left, shown[1] - top, shown[2] - left, shown[3] - top))
        if opacity < _OPAQUE:
            mask = mask.point(lambda covered: covered * opacity // _OPAQUE)
        image.paste(mark.color[:3], shown, mask)


def encode_png(image: Image.Image, *, max_bytes: int = MAX_PNG_BYTES) -> bytes:
    """Encode an RGB image as a whole PNG file; the same pixels give the same bytes.

    A picture that would have more than `max_bytes` bytes gets a palette of 256 colours, or of fewer if it is
    still too large. The smallest file is returned; it may still be larger than `max_bytes`.
    """
    rows = _filtered(image)
    if rows.nbytes > _USUAL_RATIO * max_bytes:
        expected = _BANDS * len(zlib.compress(_band_sample(rows), _LEVEL))
        if expected > max_bytes * (1 + _SAMPLING_ERROR):
            return _png_with_palette(image, max_bytes)
    png = _png(image, _RGB, (b"IDAT", zlib.compress(rows.data, _LEVEL)))
    return png if len(png) <= max_bytes else min(png, _png_with_palette(image, max_bytes), key=len)


def _band_sample(rows: NDArray[np.uint8]) -> bytes:
    """Return one of `_BANDS` parts of the rows, as bands all over the picture."""
    period = _BAND_ROWS * _BANDS
    return b"".join(rows[top : top + _BAND_ROWS].tobytes() for top in range(0, len(rows), period))


def _png_with_palette(image: Image.Image, max_bytes: int) -> bytes:
    """Encode with the first plan that makes the file small enough, else with the last one."""
    sample = image.resize((max(image.width // _PALETTE_COLUMNS, 1), image.height), Image.Resampling.NEAREST)
    png = b""
    for count, bits in _PALETTES:
        palette = sample.quantize(count, method=Image.Quantize.FASTOCTREE)
        reduced = image.quantize(palette=palette, dither=Image.Dither.NONE)
        rows = _filtered(reduced, bits)
        colors = bytes(palette.getpalette() or ())
        chunks = (b"PLTE", colors), (b"IDAT", zlib.compress(rows.data, _LEVEL))
        png = _png(image, _PALETTE, *chunks, bits=bits)
        if len(png) <= max_bytes:
            break
    return png


def _filtered(image: Image.Image, bits: int = 8) -> NDArray[np.uint8]:
    """Return the rows of the image: each is the filter's number and its difference from the row above.

    Two pixels of 4 `bits` share a byte.
    """
    raw = image.tobytes() if bits == 8 else image.tobytes("raw", "P;4")  # noqa: PLR2004
    pixels = np.frombuffer(raw, dtype=np.uint8).reshape(image.height, -1)
    rows = np.empty((image.height, pixels.shape[1] + 1), dtype=np.uint8)
    rows[:, 0] = _UP_FILTER
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    return rows


def _png(image: Image.Image, color_type: int, *chunks: tuple[bytes, bytes], bits: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", image.width, image.height, bits, color_type, 0, 0, 0)
    png = SIGNATURE
    for kind, body in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        png += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png
