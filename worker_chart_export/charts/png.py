"""Is it a PNG, whole, and of the size asked for? Checked for every chart, whoever made it."""

from __future__ import annotations

import struct

from worker_chart_export.errors import ChartApiFailed, ChartTooLarge

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IHDR_START = struct.pack(">I4s", 13, b"IHDR")
#: The last chunk of every PNG: no data, type IEND and its CRC.
IEND = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def check_png(data: bytes, *, width: int, height: int, max_bytes: int) -> None:
    """Return if `data` is a complete PNG of `width` x `height` pixels and at most `max_bytes` long.

    Raises:
        ChartApiFailed: It is not; says what is wrong with it.
        ChartTooLarge: It is larger than its readers accept.
    """
    if not data.startswith(SIGNATURE + IHDR_START) or len(data) < len(SIGNATURE) + 25 + len(IEND):
        raise ChartApiFailed("The picture is not a PNG.", sizeBytes=len(data), startsWith=ascii(data[:16]))
    if not data.endswith(IEND):
        raise ChartApiFailed("The PNG is cut off: it has no end chunk.", sizeBytes=len(data))
    size = struct.unpack(">II", data[16:24])
    if size != (width, height):
        raise ChartApiFailed(
            f"The PNG is {size[0]}x{size[1]} pixels, asked for were {width}x{height}.", sizeBytes=len(data)
        )
    if len(data) > max_bytes:
        raise ChartTooLarge(
            f"The PNG has {len(data)} bytes, readers take at most {max_bytes}.", sizeBytes=len(data)
        )
