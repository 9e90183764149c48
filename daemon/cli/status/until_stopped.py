"""Looking again and again until a stop signal, which ends even a look that hangs."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, TypeVar

from daemon.lifecycle.signals import STOP_SIGNALS
from daemon.lifecycle.stoppable_wait import StoppableWait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
#: How soon a look that is over, or a signal during one, is noticed.
POLL_SECONDS = 0.05


def until_stopped(look: Callable[[], T], *, every_seconds: float) -> Iterator[T]:
    """What `look` returns, time after time; the end is a stop signal. Errors of `look` are raised here.

    Stop signals must be blocked in all threads: they are waited for. A look that is under way then is left
    behind in a thread that holds nobody up.
    """
    threads = StoppableWait()
    while True:
        under_way = threads.start(look, name="look")
        while not under_way.done():
            if _stopped_within(POLL_SECONDS):
                return
        yield under_way.result()
        if _stopped_within(every_seconds):
            return


def _stopped_within(seconds: float) -> bool:
    return signal.sigtimedwait(STOP_SIGNALS, seconds) is not None
