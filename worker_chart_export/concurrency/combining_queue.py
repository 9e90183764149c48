"""Flat combining: requests that wait for the same resource are processed together, in one batch."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from worker_chart_export.concurrency.parallel import ThreadCache
from worker_chart_export.errors import (
    FIRESTORE,
    BackendRefused,
    BackendUnavailable,
    WorkerError,
    without_frames,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: A waiting caller checks this often whether its time has ended or its step was stopped.
POLL_SECONDS = 0.5

_threads = ThreadCache("batch")


class _Signal:
    """An event for one waiting thread. `set` and `clear` need the lock of the queue.

    `threading.Event` is a condition around a flag: it takes more locks, and makes one for each wait.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()  # free = set

    def set(self) -> None:
        """Let the thread continue, or not begin to wait."""
        if self._lock.locked():
            self._lock.release()

    def clear(self) -> None:
        """Forget that it was set."""
        self._lock.acquire(blocking=False)

    def wait(self, seconds: float) -> None:
        """Wait until it is set, or until the time has passed. Clear it."""
        self._lock.acquire(timeout=seconds)


@dataclass(slots=True, kw_only=True, eq=False)
class QueuedRequest:
    """One caller's request.

    Attributes:
        answer: The result, once there is one.
        error: The final error, in place of an answer.
        last_error: The error of the last batch, after which the request is tried again.
        in_flight: A batch that contains the request is being processed.
        abandoned: The caller does not wait any more.
        must_verify: The last batch may have taken effect without a clear answer. The request needs one more
            batch to find out, even when the caller's time has ended.
        woken: Set when the caller has to look: the request is done, or the caller may run the next batch.
            An event of all callers would wake those too that only wait on.
    """

    answer: Any = None
    error: WorkerError | None = None
    last_error: BackendUnavailable | None = None
    in_flight: bool = False
    abandoned: bool = False
    must_verify: bool = False
    woken: _Signal = field(default_factory=_Signal)

    @property
    def is_done(self) -> bool:
        """Whether the request has an answer or a final error."""
        return self.answer is not None or self.error is not None

    def take_error(self) -> WorkerError:
        """Return the final error, for its caller to raise, and forget it.

        An error that the request still holds would keep the frames of its caller, and so itself and all that
        was read, until Python's next full garbage collection: hundreds of MiB in large runs.
        """
        error, self.error, self.last_error = self.error, None, None
        if error is None:
            raise AssertionError("the request has no error")
        return error


R = TypeVar("R", bound=QueuedRequest)


class CombiningQueue(Generic[R]):
    """Queue the requests for one resource and process them in batches, one batch at a time.

    No thread is kept for it: whenever no batch runs, one of the waiting callers runs the next one for all.
    Shared by all threads.

    Args:
        choose: Selects the next batch from the waiting requests.
        process: Processes a batch: sets the answers it can. When it raises `BackendUnavailable`, all its
            requests wait for the next batch; any other error is final for all of them.
        pause: Called before each batch, so that more requests can join it.
        timeout_error: Makes the error of a request whose time ends in the queue, before any batch held it.
        in_background: Process batches in a thread of their own, so that a backend that hangs holds no caller
            longer than its time.
    """

    def __init__(
        self,
        *,
        choose: Callable[[Sequence[R]], Sequence[R]],
        process: Callable[[Sequence[R]], None],
        pause: Callable[[], None],
        timeout_error: Callable[[], WorkerError],
        in_background: bool = False,
    ) -> None:
        self._choose = choose
        self._process = process
        self._pause = pause
        self._timeout_error = timeout_error
        self._in_background = in_background
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: list[R] = []

    def wait_for(self, request: R, remaining_seconds: Callable[[], float]) -> list[R]:
        """Queue a request and return once it is done. Run batches while no other caller runs them.

        Args:
            request: The request. It is tried at least once, unless its time ends behind another batch.
            remaining_seconds: How much longer to wait. Called again and again.

        Returns:
            Abandoned requests that got an answer in a batch which this caller ran itself.
        """
        abandoned: list[R] = []
        with self._lock:
            self._waiting.append(request)
        try:
            while self._await_turn(request, remaining_seconds):
                if self._in_background and self._has_passed_its_turn_on():
                    continue
                batch = self._take_turn()
                abandoned += [other for other in batch if other.abandoned and other.answer is not None]
        except BaseException:  # a KeyboardInterrupt
            self._leave(request)
            raise
        return abandoned

    def _leave(self, request: R) -> None:
        """Take a request out of the queue whose caller does not wait any more."""
        with self._lock:
            request.abandoned = True
            if not request.in_flight and request in self._waiting:
                self._waiting.remove(request)
            self._wake_next()

    def _await_turn(self, request: R, remaining_seconds: Callable[[], float]) -> bool:
        """Wait until the request is done (False), or until this caller has to run the next batch (True)."""
        while True:
            with self._lock:
                left = remaining_seconds()
                if not request.is_done:
                    self._give_up_if_late(request, left)
                is_done = request.is_done
                if not self._busy and (not is_done or self._has_unverified()):
                    self._busy = True
                    return True
                if is_done:
                    return False
                request.woken.clear()
            request.woken.wait(min(left, POLL_SECONDS) if left > 0 else POLL_SECONDS)

    def _give_up_if_late(self, request: R, left: float) -> None:
        """Give a request its error if its time has ended, and a batch has tried it or is just running."""
        was_tried = self._busy or request.last_error is not None
        if left > 0 or not was_tried or request.must_verify:
            return
        request.abandoned = True
        error: WorkerError = BackendUnavailable(FIRESTORE, "no answer in time")
        if not request.in_flight:
            error = self._timeout_error()
            self._waiting.remove(request)
        request.error = request.last_error or error
        self._wake_next()

    def _has_unverified(self) -> bool:
        """Return whether a request of a caller that has left may have taken effect: nobody knows yet."""
        return any(other.abandoned and other.must_verify for other in self._waiting)

    def _wake_next(self) -> None:
        """Let one of the callers run the next batch, unless a batch is running."""
        if not self._busy:
            for request in self._waiting:
                if not request.abandoned:
                    request.woken.set()
                    return

    def _has_passed_its_turn_on(self) -> bool:
        """Let a thread of their own run the next batches. Return False if the system has no more threads."""
        try:
            _threads.run(self._take_turns)
        except RuntimeError:
            return False
        except BaseException:  # a KeyboardInterrupt
            self._end_turn()
            raise
        return True

    def _take_turn(self) -> Sequence[R]:
        """Run one batch, and let another caller run the next."""
        try:
            return self._run_batch()
        finally:
            self._end_turn()

    def _take_turns(self) -> None:
        """Run batches while anybody waits. To hand each over to another thread would cost two switches."""
        try:
            while self._waiting:
                self._run_batch()
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        with self._lock:
            self._busy = False
            self._wake_next()

    def _run_batch(self) -> Sequence[R]:
        batch: Sequence[R] = ()
        try:
            self._pause()
            with self._lock:
                batch = self._choose(self._waiting)
                for request in batch:
                    request.in_flight, request.must_verify = True, False
            if batch:  # all callers may have left during the pause
                self._process(batch)
        except BackendUnavailable as error:
            for request in batch:
                request.last_error = without_frames(error)
        except WorkerError as error:
            _fail(batch, error)
        except BaseException as error:
            _fail(batch, BackendRefused(FIRESTORE, f"unexpected {error!r:.200}"))
            raise
        finally:
            self._take_out(batch)
        return batch

    def _take_out(self, batch: Sequence[R]) -> None:
        """Take the requests of a batch that are done out of the queue, and wake their callers."""
        with self._lock:
            self._waiting = [r for r in self._waiting if (r.must_verify if r.abandoned else not r.is_done)]
            for request in batch:
                request.in_flight = False
                if request.is_done:
                    request.woken.set()


def _fail(batch: Sequence[QueuedRequest], error: WorkerError) -> None:
    for request in batch:
        if not request.is_done:
            request.error = without_frames(error)
