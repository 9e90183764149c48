"""Keep Python's garbage collector from searching what imports make."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
