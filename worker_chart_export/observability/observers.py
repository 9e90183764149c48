"""What a step is doing, told to whoever watches: the one seam between the work and its observers.

The work opens each of its stages with `stage` and reports results with `notify_chart`, `notify_step_ended`,
`annotate` and `notify_call`. Observers (the page, the tracer) are unknown here. Without an observer all of
this costs almost nothing. An observer that fails is logged and never disturbs the work.

Stages nest: DELIVERY holds READ and STEP; STEP holds CLAIM, CHART, MANIFEST, FINALIZE and RELEASE; CHART
holds CALL and UPLOAD. A step that is rescued has no DELIVERY around it. The charts of a step are made in
threads that run in copies of the context: a `ContextVar` that an observer sets in STEP is seen in CHART.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from worker_chart_export.execution.outcome import Outcome


class Stage(StrEnum):
    """What is being done. In parentheses what `about` holds."""

    #: A message, from its arrival to its settlement (messageId; deliveryAttempt where Pub/Sub counts; its
    #: attributes are the carrier). More at its end: disposition, reason.
    DELIVERY = "delivery"
    #: A read of the run, with or without leases (runId).
    READ = "read"
    #: A step, from the claim to its end (runId, stepId, messageId: empty when it is rescued). More once it is
    #: claimed: attempt, takenOver; or not: result, reason.
    STEP = "step"
    #: The claim of the step. More at its end: result (won, taken_over, or why not); attempt and formerOwner.
    CLAIM = "claim"
    #: One chart: template, call, check, upload (chartTemplateId, attempt, requested: how many the step has).
    CHART = "chart"
    #: The chart provider at work, its retries included (chartTemplateId, symbol, timeframe).
    CALL = "call"
    #: The chart on its way into the bucket (chartTemplateId, provider, sizeBytes).
    UPLOAD = "upload"
    #: The manifest, written or replaced (attempt).
    MANIFEST = "manifest"
    #: RUNNING to SUCCEEDED or FAILED (attempt, status: what is asked for).
    FINALIZE = "finalize"
    #: The step is given back (attempt).
    RELEASE = "release"


#: What is known of a stage, by the names the logs use.
About = Mapping[str, str | int]
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChart:
    """A chart that is in the bucket.

    Attributes:
        template_id: Its chart template.
        provider: Who made it.
        uri: Where it is, `gs://...`.
        png: Its bytes; None when an earlier attempt of the step has stored it.
    """

    template_id: str
    provider: str
    uri: str
    png: bytes | None


class Observer(Protocol):
    """Who watches. Called in the thread that does the work, so it has to be quick; may be called by many."""

    def stage(
        self, stage: Stage, about: About, carrier: Mapping[str, str]
    ) -> AbstractContextManager[object] | None:
        """Called when a stage begins; what it returns is entered then, and left when the stage ends.

        It is left with the error that the stage ended in. None: the end need not be told.

        Args:
            stage: Which.
            about: What is known of it; see `Stage`.
            carrier: What came along with it: a message's attributes for DELIVERY, else nothing.
        """

    def chart_stored(self, chart: StoredChart) -> None:
        """A chart was stored, or found stored. Told inside its CHART."""

    def step_ended(self, outcome: Outcome, seconds: float) -> None:
        """A step was finished, failed, given back or lost after so long. Told inside its STEP.

        Also one that was failed in the place of a claim, after too many attempts. A claim that was lost has
        no outcome; the STEP of one that was given back ends in the error that made it so.
        """


class CloseObserver(Observer, Protocol):
    """What an observer may want besides; one that lacks a method is not told."""

    def noted(self, about: About) -> None:
        """More is known of the stage that this thread is in; see `Stage`."""

    def called(self, about: About) -> None:
        """A request to a chart provider's server has ended. Told inside its CALL, which may make several.

        Args:
            about: accountId, callNumber, httpStatus (0 = none came), outcome, durationMs.
        """


_UNWATCHED = nullcontext()
_registering = threading.Lock()
_observers: tuple[Observer, ...] = ()


@contextmanager
def watched_by(observer: Observer) -> Iterator[None]:
    """Have it watch everything that begins in this process, until the block ends."""
    global _observers  # noqa: PLW0603 - the one registration there is
    with _registering:
        _observers = (*_observers, observer)
    try:
        yield
    finally:
        with _registering:
            _observers = tuple(other for other in _observers if other is not observer)


def stage(
    which: Stage, *, carrier: Mapping[str, str] = NOTHING, **about: str | int
) -> AbstractContextManager[None]:
    """Tell the observers that this stage lasts as long as the block."""
    return _Told(which, about, carrier) if _observers else _UNWATCHED


def notify_chart(*, template_id: str, provider: str, uri: str, png: bytes | None) -> None:
    """Tell the observers of a stored chart."""
    for observer in _observers:
        chart = StoredChart(template_id=template_id, provider=provider, uri=uri, png=png)
        _safely(observer, observer.chart_stored, chart)


def notify_step_ended(outcome: Outcome, seconds: float) -> None:
    """Tell the observers how a step ended."""
    for observer in _observers:
        _safely(observer, observer.step_ended, outcome, seconds)


def annotate(**about: str | int) -> None:
    """Tell the observers that want it what has become known of the stage that lasts."""
    _tell_who_wants("noted", about)


def notify_call(**about: str | int) -> None:
    """Tell the observers that want it of a request to a chart provider's server that has ended."""
    _tell_who_wants("called", about)


def _tell_who_wants(name: str, about: About) -> None:
    for observer in _observers:
        tell = getattr(observer, name, None)
        if tell is not None:
            _safely(observer, tell, about)


class _Told:
    """One stage. Whoever has begun it also ends it, whatever becomes of the registration meanwhile."""

    __slots__ = ("_about", "_begun", "_carrier", "_which")

    def __init__(self, which: Stage, about: About, carrier: Mapping[str, str]) -> None:
        self._which = which
        self._about = about
        self._carrier = carrier
        self._begun: list[tuple[Observer, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for observer in _observers:
            _safely(observer, self._begin, observer)

    def _begin(self, observer: Observer) -> None:
        told = observer.stage(self._which, self._about, self._carrier)
        if told is not None:
            told.__enter__()
            self._begun.append((observer, told))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for observer, told in reversed(self._begun):
            _safely(observer, told.__exit__, kind, error, where)


def _safely(observer: Observer, tell: Callable[..., object], *what: object) -> None:
    """An observer's failure is its own: the work goes on."""
    try:
        tell(*what)
    except Exception as error:  # noqa: BLE001 - see above
        name = type(observer).__name__
        log.error(Event.INTERNAL_ERROR, f"The observer {name} failed: {error!r:.300}", exc_info=error)
