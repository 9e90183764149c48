"""A text in a PNG, for readers that want to know what the picture shows."""

from __future__ import annotations

import struct
import zlib

#: The signature and the first chunk, IHDR.
_HEADER_BYTES = 33


def with_text(png: bytes, keyword: str, text: str) -> bytes:
    """Return a PNG with `text` in a chunk iTXt, before its pixels (PNG specification, 11.3.3.4).

    Args:
        png: The whole file.
        keyword: The name of the text, in Latin-1, at most 79 characters.
        text: Any text; it is stored in UTF-8 and not compressed.
    """
    # The keyword, two zeros for "not compressed", and no language and no translated keyword.
    body = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_HEADER_BYTES] + chunk + png[_HEADER_BYTES:]
