"""Parallel calls in cached threads, because starting a thread costs more than a small call."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.errors import WorkerError

T = TypeVar("T")
R = TypeVar("R")

#: How long calls may go on after the scope's time has ended or the scope was stopped. The work on a step must
#: end within 2 s after its lease is lost.
OVERRUN_GRACE_SECONDS = 1.0


class ThreadCache:
    """Keeps its threads for later work, as many as have worked at the same time. Shared by all threads.

    The threads are daemon threads: one that hangs does not delay the end of the process.

    Args:
        name: The name of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        #: One entry for each thread that waits for work, or is about to. A semaphore would have a lock.
        self._idle: deque[None] = deque()

    def run(self, work: Callable[[], object]) -> None:
        """Run `work` at once in a thread of its own, in an empty context. An error ends that thread.

        Raises:
            RuntimeError: The system has no more threads.
        """
        self._take_thread()
        self._work.put(work)

    def reserve(self, count: int) -> None:
        """Start threads for the next work now, unless so many are waiting.

        Raises:
            RuntimeError: The system has no more threads.
        """
        reserved = 0
        try:
            for _ in range(count):
                self._take_thread()
                reserved += 1
        finally:
            self._idle.extend([None] * reserved)

    def _take_thread(self) -> None:
        """Take a thread that waits for work, or start one."""
        try:
            self._idle.pop()
        except IndexError:
            threading.Thread(target=self._keep_working, name=self._name, daemon=True).start()

    def _keep_working(self) -> None:
        while True:
            work = self._work.get()
            contextvars.Context().run(work)  # no variable of earlier work is left
            del work  # frees what it refers to
            self._idle.append(None)


_threads = ThreadCache("chart")


def run_in_parallel(
    call: Callable[[T], R],
    arguments: Sequence[T],
    *,
    threads: int,
    scope: CancelScope,
    timeout_error: WorkerError,
) -> list[Future[R]]:
    """Call `call` for each argument, in at most `threads` threads, until all are done or the scope ends.

    Each call runs in a copy of the caller's context. The scope is stopped at the end, so that a call which
    still hangs pays for nothing more.

    Args:
        call: Takes one argument.
        arguments: The arguments.
        threads: The number of parallel calls. Fewer when the system has no more threads; the caller makes
            them itself when it has none.
        scope: The time and the stop of the calls.
        timeout_error: Stops the scope at the end.

    Returns:
        A future for each argument, in the same order. The futures of calls that did not end are not done.

    Raises:
        WorkerError: The error that the scope was stopped with.
    """
    futures: list[Future[R]] = [Future() for _ in arguments]
    contexts = [partial(contextvars.copy_context().run, call, argument) for argument in arguments]
    jobs: deque[tuple[Future[R], Callable[[], R]]] = deque(zip(futures, contexts, strict=True))
    # One entry for each unfinished call. The futures themselves would keep the errors of failed calls alive.
    unfinished, ended = [True] * len(futures), threading.Event()
    scope.on_stop(lambda _error: ended.set())
    try:
        for started in range(min(threads, len(futures))):
            try:
                _threads.run(partial(_run_jobs, jobs, unfinished, ended))
            except RuntimeError:  # the system has no more threads
                if not started:
                    _run_jobs(jobs, unfinished, ended)
                break
        ended.wait(scope.remaining_seconds())
        if unfinished:
            wait(futures, timeout=OVERRUN_GRACE_SECONDS)
        scope.check_stopped()
    finally:
        scope.stop(timeout_error)
        jobs.clear()
    return futures


def _run_jobs(
    jobs: deque[tuple[Future[R], Callable[[], R]]], unfinished: list[bool], ended: threading.Event
) -> None:
    """Run one job after the other, in one thread of several."""
    while jobs:
        try:
            future, call = jobs.popleft()
        except IndexError:  # another thread took the last one
            return
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised by the future
            future.set_exception(error)
        # The error's traceback holds this frame. It must not hold the error, or the memory stays in a cycle.
        del future, call
        unfinished.pop()
        if not unfinished:
            ended.set()
