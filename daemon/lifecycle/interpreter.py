"""How the interpreter runs: when it searches for garbage, and when its threads take turns."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A search begins after so many new objects. Python's own limit is 700.
NEW_OBJECTS = 5000
#: A thread that waits for Python's lock asks for it after this time. Python's own time is 0.005.
SWITCH_SECONDS = 0.02


@contextmanager
def long_lived() -> Iterator[None]:
    """Search for no garbage meanwhile, and never among the objects that exist at the end.

    Imports make a hundred thousand objects that stay. To search them takes a sixth of the start of a process,
    and later some time of each full collection.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def collect_less() -> None:
    """Never search the objects that exist now, and search the others less often.

    Nearly all that is searched is in use. With Python's defaults it takes 0.6 ms of a step's processor time.
    """
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)


def switch_less() -> None:
    """Let threads that wait for Python's lock ask for it less often.

    Nearly every thread gives the lock up by itself within a millisecond, because it waits for a backend.
    Those that wait for the lock would wake up for nothing: a twentieth of a step's processor time.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
