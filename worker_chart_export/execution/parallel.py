"""A step's charts made several at a time: each ends in one item or failure, in the order asked.

Knows threads and time; what making a chart means is its caller's.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING

from worker_chart_export.concurrency.thread_cache import ThreadCache
from worker_chart_export.errors import RequestError, StepTimedOut, WorkerError
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.outputs.manifest import ManifestFailure, ManifestItem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker_chart_export.concurrency.cancel_scope import CancelScope

#: How long a chart may take to notice that the step's time is over, or that it was stopped: with what comes
#: after it, a lost lease has to end the work within 2 s.
OVERRUN_GRACE_SECONDS = 1.0

ChartResult = ManifestItem | ManifestFailure
_Job = tuple["Future[ManifestItem]", "Callable[[], ManifestItem]"]

_threads = ThreadCache("chart")


def make_in_parallel(
    make: Callable[[str], ManifestItem], template_ids: Sequence[str], *, threads: int, scope: CancelScope
) -> list[ChartResult]:
    """Call `make` for each template, at most `threads` at once, until all are done or the budget ends.

    The budget is stopped afterwards, so that whatever still hangs pays for nothing more.

    Returns:
        An item or a failure for each template, in their order.

    Raises:
        WorkerError: What the budget was stopped with, or what a call raised that is no failure of a request.
    """
    futures: list[Future[ManifestItem]] = [Future() for _ in template_ids]
    jobs: deque[_Job] = deque(
        (future, partial(contextvars.copy_context().run, make, name))
        for future, name in zip(futures, template_ids, strict=True)
    )
    try:
        _start(partial(_work_off, jobs), threads=min(threads, len(jobs)))
        _wait_for(futures, scope)
        scope.check_stopped()
    finally:
        scope.stop(_out_of_time())
        jobs.clear()
    return [_result_of(future, name) for future, name in zip(futures, template_ids, strict=True)]


class ReadOnce:
    """The step's candles, read by the first chart that asks; the others get the same bytes or error."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._result: bytes | WorkerError | None = None

    def __call__(self) -> bytes:
        """The bytes, or the error that reading them ended in."""
        with self._lock:
            if self._result is None:
                try:
                    self._result = self._read()
                except WorkerError as error:
                    self._result = error
        if isinstance(self._result, WorkerError):
            raise self._result
        return self._result


def _start(work: Callable[[], None], *, threads: int) -> None:
    """In as many threads as can be had, of which the first does for all."""
    for begun in range(threads):
        try:
            _threads.run(work)
        except RuntimeError:
            if not begun:
                raise
            return


def _work_off(jobs: deque[_Job]) -> None:
    """One chart after the other, beside others who do the same."""
    while jobs:
        try:
            future, make = jobs.popleft()
        except IndexError:  # it was the last, and somebody else has taken it
            return
        try:
            future.set_result(make())
        except BaseException as error:  # noqa: BLE001 - it is its future's
            future.set_exception(error)
        del future  # the error's traceback holds this frame, and with it what a failed chart was made of


def _wait_for(futures: Sequence[Future[ManifestItem]], scope: CancelScope) -> None:
    """Wait until all are done, the time is over or the step is stopped; the last two give a short grace."""
    over, counting, left = threading.Event(), threading.Lock(), len(futures)
    scope.on_stop(lambda _error: over.set())

    def note(_future: Future[ManifestItem]) -> None:
        nonlocal left
        with counting:
            left -= 1
            is_last = left == 0
        if is_last:
            over.set()

    for future in futures:
        future.add_done_callback(note)
    over.wait(scope.remaining_seconds())
    if not all(future.done() for future in futures):
        wait(futures, timeout=OVERRUN_GRACE_SECONDS)


def _out_of_time() -> StepTimedOut:
    return StepTimedOut("The step's time ended before this chart was made.")


def _result_of(future: Future[ManifestItem], template_id: str) -> ChartResult:
    """The chart's item, or its failure; what is no failure of the request is raised."""
    if not future.done():
        return _failure(template_id, _out_of_time())
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, RequestError):
        return _failure(template_id, error)
    raise error


def _failure(template_id: str, error: RequestError) -> ManifestFailure:
    metrics.CHART_FAILURES.labels(error.code.value).inc()
    log.warning(
        Event.CHART_FAILED, error.message, chartTemplateId=template_id, code=error.code, details=error.details
    )
    return ManifestFailure(template_id=template_id, error=error.as_step_error())
