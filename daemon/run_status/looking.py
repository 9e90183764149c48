"""Looking again and again until a stop signal, which ends even a look that hangs."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from daemon.signals import STOP_SIGNALS

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
    while True:
        under_way = _begun(look)
        while not under_way.done():
            if _stopped_within(POLL_SECONDS):
                return
        yield under_way.result()
        if _stopped_within(every_seconds):
            return


def _begun(look: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(look())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is wanted
            future.set_exception(error)

    threading.Thread(target=run, name="look", daemon=True).start()
    return future


def _stopped_within(seconds: float) -> bool:
    return signal.sigtimedwait(STOP_SIGNALS, seconds) is not None
