"""The latest charts, to be looked at, within a fixed amount of memory.

They are kept and given out as they were stored: whoever looks makes them small, and no picture of others is
ever decoded in the process that holds the keys.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: All charts together; the oldest go first.
MAX_BYTES = 6 * 1024 * 1024


class Thumbnails:
    """Keeps the latest charts. Shared by all threads.

    Args:
        max_bytes: What it may hold.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._pngs: OrderedDict[int, bytes] = OrderedDict()
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
            self._pngs[number] = png
            self._bytes += len(png)
            while self._bytes > self._max_bytes:
                self._take(next(iter(self._pngs)))
        return number

    def has(self, number: int) -> bool:
        """Whether it is still there."""
        return number in self._pngs

    def forget(self, numbers: Iterable[int]) -> None:
        """Nobody will ask for these again."""
        with self._lock:
            for number in numbers:
                self._take(number)

    def png(self, number: int) -> bytes | None:
        """The chart as it was stored; None when it is gone."""
        return self._pngs.get(number)

    def _take(self, number: int) -> None:
        self._bytes -= len(self._pngs.pop(number, b""))
