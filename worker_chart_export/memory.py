"""Return freed memory to the system, or keep it for the next chart."""

from __future__ import annotations

import ctypes
from contextlib import suppress

#: From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: So much freed memory is kept: all that a chart of 1920x1080 needs.
_KEPT_BYTES = 32 << 20


def return_freed_memory() -> None:
    """Return what Python has freed, which glibc keeps otherwise: in each thread's part of the heap.

    Without glibc this does nothing. It takes some milliseconds.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> None:
    """Keep up to 32 MiB of freed memory in this process, so that its next chart needs no new pages.

    The kernel clears each new page, which would take a fifth of a chart's time. Without glibc this does
    nothing.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
