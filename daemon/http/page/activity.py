"""Observe the work and remember what the page shows: running steps, finished steps, counts of the last hour.

All of it is bounded in size, and fast enough to run in the threads that work.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from worker_chart_export.descriptions import describe
from worker_chart_export.errors import RequestError
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.observability.observers import Observer, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from daemon.http.page.thumbnails import Thumbnails
    from worker_chart_export.observability.observers import About, StoredChart

#: The limit of remembered finished steps.
MAX_FINISHED = 50
#: The limits of remembered charts and failures of a step, and of characters of a message.
MAX_NOTES = 100
MAX_MESSAGE_CHARS = 300
SECONDS_PER_MINUTE = 60
MINUTES_PER_HOUR = 60

_current: ContextVar[StepWork | None] = ContextVar("step_on_the_page", default=None)


class Result(StrEnum):
    """How the work of this process on a step ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    #: Another worker has the step, or the step is gone. The result was not written.
    LOST = "LOST"
    #: Released, because a backend was unavailable or the worker stops. Another worker takes the step over.
    RELEASED = "RELEASED"
    #: The release failed. Another worker takes the step over once its lease has expired.
    UNRELEASED = "UNRELEASED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartNote:
    """A stored chart.

    Attributes:
        thumbnail: Its number in `Thumbnails`; None for a chart of an earlier attempt.
    """

    template_id: str
    provider: str
    uri: str
    thumbnail: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureNote:
    """A chart that failed."""

    template_id: str
    code: str
    message: str


@dataclass(slots=True, kw_only=True, eq=False)
class StepWork:
    """A running step. Its threads write it under the lock of the activity.

    Attributes:
        number: Unique, also among the steps of earlier processes of this worker.
        symbol: The symbol of its run; empty if that is not known.
        is_rescue: True if no message named the step; then it uses no handler thread.
        began: The start by the clock of the activity, in seconds since 1970.
        stage: The last stage of the step that began; the stages of single charts are in `doing`.
        requested: How many charts the step has, once that is known.
        doing: By template: the stage of its chart.
        charts: The first `MAX_NOTES` stored charts.
        stored: How many charts are stored.
        failures: The first `MAX_NOTES` failed charts.
        failed: How many charts have failed.
    """

    number: int
    run_id: str
    step_id: str
    symbol: str
    is_rescue: bool
    began: float
    stage: Stage = Stage.CLAIM
    attempt: int | None = None
    requested: int | None = None
    doing: dict[str, Stage] = field(default_factory=dict)
    charts: list[ChartNote] = field(default_factory=list)
    stored: int = 0
    failures: list[FailureNote] = field(default_factory=list)
    failed: int = 0
    outcome: Outcome | None = None
    seconds: float = 0.0

    def begin(self, stage: Stage, about: About) -> None:
        """Note the start of a stage of the step or of one of its charts."""
        if stage in (Stage.CALL, Stage.UPLOAD, Stage.CHART):
            self.doing[str(about["chartTemplateId"])] = stage
        if stage not in (Stage.CALL, Stage.UPLOAD):
            self.stage = stage
        if "attempt" in about:
            self.attempt = int(about["attempt"])
        if "requested" in about:
            self.requested = int(about["requested"])

    def copied(self) -> StepWork:
        """Copy it, because its threads continue to change it."""
        work = copy(self)
        work.doing, work.charts, work.failures = dict(self.doing), list(self.charts), list(self.failures)
        return work


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedStep:
    """A finished step; names as in `StepWork`.

    Attributes:
        code: The error code of a FAILED step.
        reason: The error as text; empty for a SUCCEEDED step.
        charts: Sorted by template id, so that different steps can be compared.
        ended: The end by the clock of the activity, in seconds since 1970.
    """

    number: int
    run_id: str
    step_id: str
    symbol: str
    attempt: int | None
    result: Result
    code: str
    reason: str
    ended: float
    seconds: float
    requested: int | None
    manifest_uri: str | None
    charts: tuple[ChartNote, ...]
    stored: int
    failures: tuple[FailureNote, ...]
    failed: int

    @classmethod
    def of(cls, work: StepWork, outcome: Outcome, error: BaseException | None, *, now: float) -> FinishedStep:
        """Summarize the work on a step that ended with `outcome`, and with `error` if it was released."""
        code = reason = ""
        match outcome.kind:
            case OutcomeKind.SUCCEEDED:
                result = Result.SUCCEEDED
            case OutcomeKind.FAILED:
                result = Result.FAILED
                if outcome.error:
                    code, reason = str(outcome.error.code), outcome.error.message
            case OutcomeKind.RELEASED:
                result, reason = Result.RELEASED, str(error or "")
            case OutcomeKind.NOT_RELEASED:
                result, reason = Result.UNRELEASED, str(error or "")
            case _:
                lost_by = str(outcome.reason or "")
                result, reason = Result.LOST, describe(lost_by) or lost_by
        return cls(
            number=work.number,
            run_id=work.run_id,
            step_id=work.step_id,
            symbol=work.symbol,
            attempt=work.attempt,
            result=result,
            code=code,
            reason=reason,
            ended=now,
            seconds=work.seconds,
            requested=work.requested,
            manifest_uri=outcome.manifest_uri,
            charts=tuple(sorted(work.charts, key=lambda chart: chart.template_id)),
            stored=work.stored,
            failures=tuple(work.failures),
            failed=work.failed,
        )


@dataclass(slots=True)
class Minute:
    """The counts of one minute.

    Attributes:
        index: Minutes since 1970.
        unfinished: Steps that were released or lost.
        charts: Charts that were made; without those of an earlier attempt.
        failed_charts: Charts that failed, in any step.
    """

    index: int
    succeeded: int = 0
    failed: int = 0
    unfinished: int = 0
    charts: int = 0
    failed_charts: int = 0


class LastHour:
    """Counts by minute. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._minutes: deque[Minute] = deque(maxlen=MINUTES_PER_HOUR)

    def at(self, now: float) -> Minute:
        """Return the minute to count in: not before the latest one, though another thread may be late."""
        index = int(now // SECONDS_PER_MINUTE)
        if not self._minutes or self._minutes[-1].index < index:
            self._minutes.append(Minute(index))
        return self._minutes[-1]

    def series(self, now: float) -> list[Minute]:
        """Return the last 60 minutes, the current one last."""
        latest = self._minutes[-1].index if self._minutes else 0
        last = max(int(now // SECONDS_PER_MINUTE), latest)
        known = {minute.index: minute for minute in self._minutes}
        return [known.get(index) or Minute(index) for index in range(last - MINUTES_PER_HOUR + 1, last + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivitySnapshot:
    """The activity at one moment.

    Attributes:
        running: The oldest step first.
        finished: The latest step first.
        minutes: The last hour, the current minute last.
    """

    running: list[StepWork]
    finished: list[FinishedStep]
    minutes: list[Minute]


class Activity(Observer):
    """An observer of `worker_chart_export.observability.observers`. Shared by all threads.

    Args:
        thumbnails: Keeps the charts.
        clock: Seconds since 1970 by a clock that is never set.
    """

    stages = frozenset(Stage) - {Stage.DELIVERY, Stage.READ}

    def __init__(self, thumbnails: Thumbnails, *, clock: Callable[[], float]) -> None:
        self._thumbnails = thumbnails
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[int, StepWork] = {}
        self._finished: deque[FinishedStep] = deque()
        self._hour = LastHour()

    def snapshot(self) -> ActivitySnapshot:
        """Return a copy of everything that the page shows."""
        with self._lock:
            return ActivitySnapshot(
                running=[work.copied() for work in self._running.values()],
                finished=list(reversed(self._finished)),
                minutes=[copy(minute) for minute in self._hour.series(self._clock())],
            )

    def stage(
        self, stage: Stage, about: About, carrier: Mapping[str, str]
    ) -> AbstractContextManager[object] | None:
        """Note the start of a stage."""
        del carrier
        if stage is Stage.STEP:
            return self._step(about)
        work = _current.get()
        if work is None:
            return None
        with self._lock:
            work.begin(stage, about)
        return self._chart(work, str(about["chartTemplateId"])) if stage is Stage.CHART else None

    def chart_stored(self, chart: StoredChart) -> None:
        """Note the chart, and keep it as a thumbnail."""
        work = _current.get()
        if work is None:
            return
        with self._lock:
            work.stored += 1
            self._hour.at(self._clock()).charts += chart.png is not None
            if len(work.charts) < MAX_NOTES:
                thumbnail = None if chart.png is None else self._thumbnails.keep(chart.png)
                note = ChartNote(
                    template_id=chart.template_id,
                    provider=chart.provider,
                    uri=chart.uri,
                    thumbnail=thumbnail,
                )
                work.charts.append(note)

    def step_ended(self, outcome: Outcome, seconds: float) -> None:
        """Note the outcome; the step is finished when its stage ends."""
        work = _current.get()
        if work is not None:
            work.outcome, work.seconds = outcome, seconds

    @contextmanager
    def _step(self, about: About) -> Iterator[None]:
        """Note a step while its stage lasts; all that its threads report belongs to it."""
        work = StepWork(
            number=self._thumbnails.new_number(),
            run_id=str(about["runId"]),
            step_id=str(about["stepId"]),
            symbol=str(about.get("symbol", "")),
            is_rescue=not about["messageId"],
            began=self._clock(),
        )
        with self._lock:
            self._running[work.number] = work
        token = _current.set(work)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            _current.reset(token)
            self._end_step(work, error)

    def _end_step(self, work: StepWork, error: BaseException | None) -> None:
        now, dropped = self._clock(), None
        with self._lock:
            del self._running[work.number]
            if work.outcome is None:
                return  # this worker never had the step
            step = FinishedStep.of(work, work.outcome, error, now=now)
            self._finished.append(step)
            minute = self._hour.at(now)
            minute.succeeded += step.result is Result.SUCCEEDED
            minute.failed += step.result is Result.FAILED
            minute.unfinished += step.result not in (Result.SUCCEEDED, Result.FAILED)
            if len(self._finished) > MAX_FINISHED:
                dropped = self._finished.popleft()
        if dropped is not None:
            numbers = (chart.thumbnail for chart in dropped.charts if chart.thumbnail is not None)
            self._thumbnails.forget(numbers)

    @contextmanager
    def _chart(self, work: StepWork, template_id: str) -> Iterator[None]:
        """Note the end of a chart. An error that stops the step as a whole is no failure of the chart."""
        failure: RequestError | None = None
        try:
            yield
        except RequestError as error:
            failure = error
            raise
        finally:
            with self._lock:
                work.doing.pop(template_id, None)
                if failure is not None:
                    work.failed += 1
                    self._hour.at(self._clock()).failed_charts += 1
                if failure is not None and len(work.failures) < MAX_NOTES:
                    note = FailureNote(
                        template_id=template_id,
                        code=failure.code.value,
                        message=failure.message[:MAX_MESSAGE_CHARS],
                    )
                    work.failures.append(note)
