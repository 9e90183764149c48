"""Draw small valid PNGs of any size, each with different content."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB8 = struct.pack(">BBBBB", 8, 2, 0, 0, 0)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache(maxsize=64)
def _pixels(width: int, height: int) -> bytes:
    row = b"\x00" + b"\xf5\xf7\xfa" * width
    return zlib.compress(row * height, 9)


def png(width: int, height: int, text: str) -> bytes:
    """Return a one-colour picture with `text` as its comment, so different requests get different bytes."""
    header = struct.pack(">II", width, height) + _RGB8
    comment = b"Comment\x00" + text.encode("latin-1", "replace")
    parts = ((b"IHDR", header), (b"tEXt", comment), (b"IDAT", _pixels(width, height)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)
