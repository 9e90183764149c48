"""Inflate gzip up to a limit. 1.5 MB may inflate to 1.5 GB."""

from __future__ import annotations

import gzip
import io
import zlib

#: How a gzip file starts (RFC 1952, 2.3.1).
_GZIP_MAGIC = b"\x1f\x8b"


class InflatedTooLarge(Exception):
    """What the gzip holds is larger than asked for."""


class BrokenGzip(Exception):
    """The content starts like gzip, and is not."""


def is_gzip(content: bytes) -> bool:
    """Return whether a file starts like gzip."""
    return content.startswith(_GZIP_MAGIC)


def inflated(content: bytes, *, max_bytes: int) -> bytes:
    """Return what a gzip file holds, or any other content as it is. Stop at `max_bytes` while inflating.

    Raises:
        InflatedTooLarge: The gzip holds more than `max_bytes` bytes.
        BrokenGzip: It is cut off or damaged.
    """
    if not is_gzip(content):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            whole = stream.read(max_bytes + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise BrokenGzip(f"it is not the gzip that it starts as: {error}") from error
    if len(whole) > max_bytes:
        raise InflatedTooLarge
    return whole
