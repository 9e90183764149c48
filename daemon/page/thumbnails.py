"""Small pictures of the latest charts, made only when somebody looks, within a fixed amount of memory."""

from __future__ import annotations

import io
import itertools
import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from worker_chart_export.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Iterable

#: All charts and thumbnails together; the oldest go first.
MAX_BYTES = 6 * 1024 * 1024
#: Twice what the page shows, for screens that show two dots for one.
SIZE = (320, 240)
#: Decoding a larger picture would take more memory than a thumbnail is worth.
MAX_PIXELS = 2048 * 2048
QUALITY = 80


class Thumbnails:
    """Keeps charts as they were stored until a thumbnail is asked for, and that from then on.

    Shared by all threads.

    Args:
        max_bytes: What it may hold.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._pngs: OrderedDict[int, bytes] = OrderedDict()
        self._made: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        # An earlier process of this worker gave other numbers: a page that outlives it must not mix them.
        self._numbers = itertools.count(secrets.randbits(32) << 16)

    @property
    def held_bytes(self) -> int:
        """What it holds."""
        return self._bytes

    def new_number(self) -> int:
        """A number that nobody else has."""
        return next(self._numbers)

    def keep(self, png: bytes) -> int:
        """Keep a chart, and let go of the oldest; returns its number."""
        number = self.new_number()
        with self._lock:
            self._put(self._pngs, number, png)
        return number

    def has(self, number: int) -> bool:
        """Whether there is a thumbnail to be had."""
        return number in self._pngs or number in self._made

    def forget(self, numbers: Iterable[int]) -> None:
        """Nobody will ask for these again."""
        with self._lock:
            for number in numbers:
                self._take(self._pngs, number)
                self._take(self._made, number)

    def thumbnail(self, number: int) -> bytes | None:
        """The chart, small, as WebP; None when it is gone."""
        with self._making:  # one at a time: a page asks for many at once, and each takes some megabytes
            with self._lock:
                png = self._pngs.get(number)
                if png is None:
                    return self._made.get(number)
            made = _small(png)
            with self._lock:
                if self._take(self._pngs, number) is not None and made is not None:
                    self._put(self._made, number, made)
            return made

    def _put(self, where: OrderedDict[int, bytes], number: int, content: bytes) -> None:
        where[number] = content
        self._bytes += len(content)
        while self._bytes > self._max_bytes:
            oldest = min(next(iter(kept)) for kept in (self._pngs, self._made) if kept)
            self._take(self._pngs, oldest)
            self._take(self._made, oldest)

    def _take(self, where: OrderedDict[int, bytes], number: int) -> bytes | None:
        content = where.pop(number, None)
        self._bytes -= len(content or b"")
        return content


def _small(png: bytes) -> bytes | None:
    """The picture made small; None when it is too large to be decoded, or can't be."""
    from PIL import Image  # noqa: PLC0415 - in most modes nothing else needs it

    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            small = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        log.warning(Event.INTERNAL_ERROR, f"A chart can't be made small: {error!r:.200}")
        return None
    small.thumbnail(SIZE)
    written = io.BytesIO()
    small.save(written, "WEBP", quality=QUALITY)
    return written.getvalue()
