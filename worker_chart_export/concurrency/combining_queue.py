"""Many callers, one doer: what they want of the same thing is done for all of them at once.

Callers queue; one of them at a time takes a turn for everybody who waits, then each has an answer of its own.
Who has none yet waits for the next turn, which anybody may take.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from worker_chart_export.concurrency.thread_cache import ThreadCache
from worker_chart_export.errors import BackendRefused, BackendUnavailable, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: A caller looks this often whether its patience has ended.
LOOK_SECONDS = 0.5

_threads = ThreadCache("turn")


@dataclass(slots=True, kw_only=True, eq=False)
class QueuedRequest:
    """What one caller wants, on its way.

    Attributes:
        in_flight: A turn is being taken with it.
        was_given_up: Its caller waits no more.
        settled: Its answer.
        error: Or why there will be none.
        trouble: Why there is none yet.
        must_verify: It is worth one more turn even without patience, to look what became of the last one.
    """

    in_flight: bool = False
    was_given_up: bool = False
    settled: Any = None
    error: WorkerError | None = None
    last_error: BackendUnavailable | None = None
    must_verify: bool = False

    @property
    def is_done(self) -> bool:
        """Whether its caller has an answer."""
        return self.settled is not None or self.error is not None


R = TypeVar("R", bound=QueuedRequest)


class CombiningQueue(Generic[R]):
    """The queue for one thing. Shared by all threads.

    Args:
        subject: What it is about, for error messages.
        choose: Of those who wait, who shares the next turn.
        attempt: Takes a turn: answers as many as it can. What it raises is everybody's trouble
            (BackendUnavailable: they stay for the next turn) or everybody's end.
        pause: Called before a turn, while others still join.
        in_background: Each turn runs in a thread of its own, so that a backend that hangs holds no caller
            longer than the caller wants to wait.
    """

    def __init__(
        self,
        *,
        subject: str,
        choose: Callable[[Sequence[R]], Sequence[R]],
        attempt: Callable[[Sequence[R]], None],
        pause: Callable[[], None],
        in_background: bool = False,
    ) -> None:
        self._subject = subject
        self._choose = choose
        self._attempt = attempt
        self._pause = pause
        self._aside = in_background
        self._changed = threading.Condition()
        self._busy = False
        self._waiting: list[R] = []

    def wait_for(self, request: R, patience_seconds: Callable[[], float]) -> list[R]:
        """Queue, take turns as they come, and return once the request is done.

        Args:
            request: What is wanted.
            patience_seconds: How much longer it is worth waiting, asked again and again. It is tried once
                in any case.

        Returns:
            Requests that were answered in this caller's turns though their own callers wait no more; not of
            turns aside.
        """
        orphans: list[R] = []
        with self._changed:
            self._waiting.append(request)
        while self._await_turn(request, patience_seconds):
            if self._aside and self._take_turn_aside():
                continue
            batch = self._take_turn()
            orphans += [other for other in batch if other.was_given_up and other.settled is not None]
        return orphans

    def _await_turn(self, request: R, patience_seconds: Callable[[], float]) -> bool:
        """True when it is on the caller to take a turn; False when its request is done."""
        with self._changed:
            while not request.is_done or self._must_verify():
                if request.is_done:
                    if self._busy:
                        return False  # whoever takes that turn looks for them
                    self._busy = True
                    return True
                left = patience_seconds()
                was_tried = self._busy or request.last_error is not None
                if left <= 0 and was_tried and not request.must_verify:
                    self._give_up(request)
                elif self._busy:
                    self._changed.wait(min(left, LOOK_SECONDS) if left > 0 else LOOK_SECONDS)
                else:
                    self._busy = True
                    return True
            return False

    def _must_verify(self) -> bool:
        """Whether a commit for somebody who waits no more may have taken effect."""
        return any(request.was_given_up and request.must_verify for request in self._waiting)

    def _give_up(self, request: R) -> None:
        request.was_given_up = True
        request.error = request.last_error or BackendUnavailable("firestore", f"{self._subject} is contended")
        if not request.in_flight:
            self._waiting.remove(request)

    def _take_turn_aside(self) -> bool:
        """Whether a thread could be had for it."""
        try:
            _threads.run(self._take_turn)
        except RuntimeError:  # the system has no more
            return False
        return True

    def _take_turn(self) -> Sequence[R]:
        batch: Sequence[R] = ()
        try:
            self._pause()
            batch = self._begin()
            if batch:  # with turns aside, everybody may have given up meanwhile
                self._attempt(batch)
        except BackendUnavailable as error:
            for request in batch:
                request.last_error = error
        except WorkerError as error:
            _end(batch, error)
        except BaseException as error:
            _end(batch, BackendRefused("firestore", f"unexpected {error!r:.200}"))
            raise
        finally:
            self._finish(batch)
        return batch

    def _begin(self) -> Sequence[R]:
        with self._changed:
            batch = self._choose(self._waiting)
            for request in batch:
                request.in_flight, request.must_verify = True, False
            return batch

    def _finish(self, batch: Sequence[R]) -> None:
        with self._changed:
            for request in batch:
                request.in_flight = False
            self._waiting = [r for r in self._waiting if not r.is_done or (r.was_given_up and r.must_verify)]
            self._busy = False
            self._changed.notify_all()


def _end(batch: Sequence[QueuedRequest], error: WorkerError) -> None:
    for request in batch:
        if not request.is_done:
            request.error = error
