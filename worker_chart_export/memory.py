"""Return freed memory to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def return_freed_memory() -> None:
    """Return what Python has freed, which glibc keeps otherwise: in each thread's part of the heap.

    Without glibc this does nothing. It takes some milliseconds.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
