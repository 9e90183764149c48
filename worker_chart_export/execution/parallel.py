"""Make the charts of a step in parallel. Each ends in one manifest item or one failure."""

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

#: How long charts may go on after the step's time has ended or the step was stopped. The work on a step must
#: end within 2 s after its lease is lost.
OVERRUN_GRACE_SECONDS = 1.0
OUT_OF_TIME = "The step's time ended before this chart was made."

ChartResult = ManifestItem | ManifestFailure
_Job = tuple["Future[ManifestItem]", "Callable[[], ManifestItem]"]

_threads = ThreadCache("chart")


def make_in_parallel(
    make: Callable[[str], ManifestItem], template_ids: Sequence[str], *, threads: int, scope: CancelScope
) -> list[ChartResult]:
    """Call `make` for each template, in at most `threads` threads, until all are done or the scope ends.

    The scope is stopped at the end, so that a call which still hangs pays for nothing more.

    Args:
        make: Makes the chart of one template.
        template_ids: The templates, each once.
        threads: How many charts to make at a time. Fewer when the system has no more threads.
        scope: The time and the stop of the charts.

    Returns:
        An item or a failure for each template, in the same order.

    Raises:
        WorkerError: The error that the scope was stopped with, or that a call raised, unless it is a
            `RequestError`.
    """
    futures: dict[str, Future[ManifestItem]] = {}
    jobs: deque[_Job] = deque()
    for name in template_ids:
        futures[name] = Future()
        jobs.append((futures[name], partial(contextvars.copy_context().run, make, name)))
    unfinished, ended = [*futures], threading.Event()
    scope.on_stop(lambda _error: ended.set())
    try:
        for started in range(min(threads, len(futures))):
            try:
                _threads.run(partial(_make_charts, jobs, unfinished, ended))
            except RuntimeError:  # the system has no more threads
                if not started:
                    raise
                break
        ended.wait(scope.remaining_seconds())
        wait(futures.values(), timeout=OVERRUN_GRACE_SECONDS)
        scope.check_stopped()
    finally:
        scope.stop(StepTimedOut(OUT_OF_TIME))
        jobs.clear()
    return [_result_of(future, name) for name, future in futures.items()]


def _make_charts(jobs: deque[_Job], unfinished: list[str], ended: threading.Event) -> None:
    """Make one chart after the other, in one thread of several."""
    while jobs:
        try:
            future, make = jobs.popleft()
        except IndexError:  # another thread took the last one
            return
        try:
            future.set_result(make())
        except BaseException as error:  # noqa: BLE001 - raised by the future
            future.set_exception(error)
        # The error's traceback holds this frame. It must not hold the error, or the memory stays in a cycle.
        del future, make
        unfinished.pop()
        if not unfinished:
            ended.set()


def _result_of(future: Future[ManifestItem], template_id: str) -> ChartResult:
    """Return the chart's item, or its failure. Raise any error that is no failure of one request."""
    error = future.exception() if future.done() else StepTimedOut(OUT_OF_TIME)
    if error is None:
        return future.result()
    if not isinstance(error, RequestError):
        raise error
    metrics.CHART_FAILURES.labels(error.code.value).inc()
    log.warning(
        Event.CHART_FAILED, error.message, chartTemplateId=template_id, code=error.code, details=error.details
    )
    return ManifestFailure(template_id=template_id, error=error.as_step_error())


class ReadOnce:
    """Read the step's candles when the first chart needs them; all charts get the same bytes or error.

    Args:
        read: Reads the bytes.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._result: bytes | WorkerError | None = None

    def __call__(self) -> bytes:
        """Return the bytes, or raise the error of the one read."""
        with self._lock:
            if self._result is None:
                try:
                    self._result = self._read()
                except WorkerError as error:
                    self._result = error
        if isinstance(self._result, WorkerError):
            raise self._result
        return self._result
