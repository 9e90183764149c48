"""The latest charts, kept in memory for the page.

They are served unchanged, and the browser scales them. So the process that holds the API keys never decodes a
picture from outside.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The limit for all charts together; the oldest are dropped first.
MAX_BYTES = 6 * 1024 * 1024


class Thumbnails:
    """Keeps the latest charts. Shared by all threads.

    Args:
        max_bytes: The limit for all charts together.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._pngs: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        # A random start: a page that stays open over a restart must not mix the numbers of two processes.
        self._numbers = itertools.count(secrets.randbits(32) << 16)

    @property
    def held_bytes(self) -> int:
        """The size of all charts together."""
        return self._bytes

    def new_number(self) -> int:
        """Return a unique number."""
        return next(self._numbers)

    def keep(self, png: bytes) -> int:
        """Keep a chart, drop the oldest if needed, and return its number."""
        number = self.new_number()
        with self._lock:
            self._pngs[number] = png
            self._bytes += len(png)
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._pngs)))
        return number

    def has(self, number: int) -> bool:
        """Return True if the chart is still kept."""
        return number in self._pngs

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop these charts."""
        with self._lock:
            for number in numbers:
                self._drop(number)

    def png(self, number: int) -> bytes | None:
        """Return the chart as it was stored, or None if it was dropped."""
        return self._pngs.get(number)

    def _drop(self, number: int) -> None:
        self._bytes -= len(self._pngs.pop(number, b""))
