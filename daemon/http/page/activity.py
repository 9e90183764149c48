"""Watches the work and remembers what the page shows: steps in flight, the last finished, an hour's counts.

Everything here is bounded, and cheap enough to happen in the threads that work.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.http.page.minutes import LastHour, Minute
from daemon.http.page.work import MAX_NOTES, ChartNote, FinishedStep, Result, StepWork, finished
from worker_chart_export.observability.observers import Observer, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from daemon.http.page.thumbnails import Thumbnails
    from worker_chart_export.execution.outcome import Outcome
    from worker_chart_export.observability.observers import About, StoredChart

#: So many finished steps are remembered.
MAX_FINISHED = 50

_present: ContextVar[StepWork | None] = ContextVar("step_on_the_page", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen so far, at one moment.

    Attributes:
        running: The oldest first.
        finished: The latest first.
        minutes: The last hour, the present minute last.
    """

    running: list[StepWork]
    finished: list[FinishedStep]
    minutes: list[Minute]


class Activity(Observer):
    """An observer of `worker_chart_export.observability.observers`. Shared by all threads.

    Args:
        thumbnails: Gets the charts.
        clock: The wall clock, in seconds since 1970.
    """

    def __init__(self, thumbnails: Thumbnails, *, clock: Callable[[], float] = time.time) -> None:
        self._thumbnails = thumbnails
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[int, StepWork] = {}
        self._finished: deque[FinishedStep] = deque()
        self._hour = LastHour()

    def seen(self) -> Seen:
        """What there is to show now."""
        with self._lock:
            return Seen(
                running=[_frozen(work) for work in self._running.values()],
                finished=list(reversed(self._finished)),
                minutes=[copy(minute) for minute in self._hour.series(self._clock())],
            )

    def stage(
        self, stage: Stage, about: About, carrier: Mapping[str, str]
    ) -> AbstractContextManager[object] | None:
        """Note what a step is at."""
        del carrier
        if stage is Stage.STEP:
            return _Step(self, about)
        work = _present.get()
        if work is None or stage is Stage.READ:
            return None
        with self._lock:
            work.begin(stage, about)
        return _Chart(self, work, str(about["chartTemplateId"])) if stage is Stage.CHART else None

    def chart_stored(self, chart: StoredChart) -> None:
        """Note the chart, and keep it for a thumbnail."""
        work = _present.get()
        if work is None:
            return
        with self._lock:
            work.stored += 1
            self._hour.at(self._clock()).charts += chart.png is not None
            if len(work.charts) < MAX_NOTES:
                work.charts.append(self._note(chart))

    def _note(self, chart: StoredChart) -> ChartNote:
        return ChartNote(
            template_id=chart.template_id,
            provider=chart.provider,
            uri=chart.uri,
            thumbnail=None if chart.png is None else self._thumbnails.keep(chart.png),
        )

    def step_ended(self, outcome: Outcome, seconds: float) -> None:
        """Note how; the step is finished once its stage ends."""
        work = _present.get()
        if work is not None:
            work.outcome, work.seconds = outcome, seconds

    def begin(self, about: About) -> StepWork:
        """A step begins."""
        work = StepWork(
            number=self._thumbnails.new_number(),
            run_id=str(about["runId"]),
            step_id=str(about["stepId"]),
            is_rescue=not about["messageId"],
            began=self._clock(),
        )
        with self._lock:
            self._running[work.number] = work
        return work

    def end(self, work: StepWork, error: BaseException | None) -> None:
        """It ends."""
        now = self._clock()
        with self._lock:
            del self._running[work.number]
            step = finished(work, error, now=now)
            if step is None:
                return
            self._finished.append(step)
            minute = self._hour.at(now)
            minute.succeeded += step.result is Result.SUCCEEDED
            minute.failed += step.result is Result.FAILED
            minute.unfinished += step.result not in (Result.SUCCEEDED, Result.FAILED)
            gone = self._finished.popleft() if len(self._finished) > MAX_FINISHED else None
        if gone is not None:
            self._thumbnails.forget(chart.thumbnail for chart in gone.charts if chart.thumbnail is not None)

    def end_chart(self, work: StepWork, template_id: str, error: BaseException | None) -> None:
        """One of its charts ends."""
        with self._lock:
            self._hour.at(self._clock()).failed_charts += work.end_chart(template_id, error)


class _Step:
    """A step's stage: while it lasts, what is told in its threads is of this step."""

    __slots__ = ("_about", "_activity", "_token", "_work")

    def __init__(self, activity: Activity, about: About) -> None:
        self._activity = activity
        self._about = about

    def __enter__(self) -> None:
        self._work = self._activity.begin(self._about)
        self._token = _present.set(self._work)

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        _present.reset(self._token)
        self._activity.end(self._work, error)


class _Chart:
    """A chart's stage."""

    __slots__ = ("_activity", "_template_id", "_work")

    def __init__(self, activity: Activity, work: StepWork, template_id: str) -> None:
        self._activity = activity
        self._work = work
        self._template_id = template_id

    def __enter__(self) -> None:
        """It was noted already."""

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        self._activity.end_chart(self._work, self._template_id, error)


def _frozen(work: StepWork) -> StepWork:
    """As it is now: the threads that work it go on."""
    now = copy(work)
    now.doing, now.charts, now.failures = dict(work.doing), list(work.charts), list(work.failures)
    return now
