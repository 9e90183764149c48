"""Observers: the only connection between the work on steps and what watches it (the page, the tracer).

The work opens each of its stages with `stage`, and reports results with `notify_chart`, `notify_step_ended`,
`annotate` and `notify_call`. Without an observer this costs almost nothing. An observer that fails is logged;
the work continues.

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
from typing import TYPE_CHECKING, ClassVar

from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from worker_chart_export.execution.outcome import Outcome


class Stage(StrEnum):
    """The stages of the work. In parentheses: the names in `about`; then those that `annotate` adds."""

    #: A message, from its arrival to its settlement (messageId; deliveryAttempt where Pub/Sub counts). The
    #: carrier holds the message's attributes. Added: runId, stepId once they are read; disposition, reason;
    #: detail (a sentence) and delaySeconds of a deferral; detail and rejected of a rejection.
    DELIVERY = "delivery"
    #: A read of the run, with or without leases (runId).
    READ = "read"
    #: A step, from the claim to its end (runId, stepId, messageId: empty when it is rescued, symbol: empty
    #: when the run was not read before). Added when it is claimed: attempt, takenOver; otherwise: result,
    #: reason.
    STEP = "step"
    #: The claim of the step. Added: result (won, taken_over, or why not); attempt and formerOwner.
    CLAIM = "claim"
    #: One chart: call, check, upload (chartTemplateId, attempt, requested: charts of the step).
    CHART = "chart"
    #: The work of the chart provider, its retries included (chartTemplateId, symbol, timeframe).
    CALL = "call"
    #: The upload of the chart (chartTemplateId, provider, sizeBytes).
    UPLOAD = "upload"
    #: The write of the manifest (attempt).
    MANIFEST = "manifest"
    #: The write of the step's result (attempt, status: SUCCEEDED or FAILED).
    FINALIZE = "finalize"
    #: The release of the step (attempt).
    RELEASE = "release"


#: Facts of a stage, by the names that the logs use.
About = Mapping[str, str | int]
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChart:
    """A chart in the bucket.

    Attributes:
        template_id: Its chart template.
        provider: The provider that made it.
        uri: Its `gs://` URI.
        png: Its bytes; None when an earlier attempt of the step stored it.
    """

    template_id: str
    provider: str
    uri: str
    png: bytes | None


class Observer:
    """The base of observers. Override the methods that matter; the others are not called.

    The threads that do the work call these methods, many at a time. So they must be fast and thread-safe.

    Attributes:
        stages: The stages that it watches. `stage` is called for no others.
    """

    stages: ClassVar[Collection[Stage]] = frozenset(Stage)

    def stage(
        self, stage: Stage, about: About, carrier: Mapping[str, str]
    ) -> AbstractContextManager[object] | None:
        """Begin a stage. The context manager that is returned is entered now and left at the stage's end.

        It is left with the error that ended the stage, if any. Return None when the end does not matter.

        Args:
            stage: The stage.
            about: The facts that are known of it; see `Stage`.
            carrier: For DELIVERY the message's attributes, otherwise empty.
        """

    def chart_stored(self, chart: StoredChart) -> None:
        """Note a chart that was stored, or was found stored. Called inside its CHART."""

    def step_ended(self, outcome: Outcome, seconds: float) -> None:
        """Note the outcome of a step and the time since its claim. Called inside its STEP.

        A claim that was lost has no outcome, unless the claim itself failed the step after too many attempts.
        A step that was released also ends its STEP in the error that caused the release.
        """

    def annotated(self, about: About) -> None:
        """Note more facts of the stage that this thread is in; see `Stage`."""

    def call_ended(self, about: About) -> None:
        """Note a request to a chart provider's server. Called inside its CALL, which may make several.

        Args:
            about: accountId, callNumber, httpStatus (0 = no answer), outcome, durationMs.
        """


_UNOBSERVED = nullcontext()
_registering = threading.Lock()
_observers: tuple[Observer, ...] = ()
#: The observers that watch a stage, or that have a method of this name. A step has some fifty such moments.
_watching: Mapping[str, tuple[Observer, ...]] = {}


@contextmanager
def watched_by(observer: Observer) -> Iterator[None]:
    """Register an observer for everything that begins in this process until the block ends."""
    with _registering:
        _register((*_observers, observer))
    try:
        yield
    finally:
        with _registering:
            _register(tuple(other for other in _observers if other is not observer))


def _register(observers: tuple[Observer, ...]) -> None:
    global _observers, _watching
    of_stages = {stage.value: tuple(one for one in observers if stage in one.stages) for stage in Stage}
    of_methods = {
        method.__name__: tuple(one for one in observers if getattr(type(one), method.__name__) is not method)
        for method in (Observer.chart_stored, Observer.step_ended, Observer.annotated, Observer.call_ended)
    }
    _observers, _watching = observers, {**of_stages, **of_methods}


def stage(
    which: Stage, *, carrier: Mapping[str, str] = NOTHING, **about: str | int
) -> AbstractContextManager[None]:
    """Notify the observers of a stage that lasts as long as the block."""
    watching = _watching.get(which)
    return _ObservedStage(which, about, carrier, watching) if watching else _UNOBSERVED


def notify_chart(*, template_id: str, provider: str, uri: str, png: bytes | None) -> None:
    """Notify the observers of a stored chart."""
    chart = StoredChart(template_id=template_id, provider=provider, uri=uri, png=png)
    for observer in _watching.get("chart_stored", ()):
        _safely(observer, observer.chart_stored, chart)


def notify_step_ended(outcome: Outcome, seconds: float) -> None:
    """Notify the observers of a step's outcome."""
    for observer in _watching.get("step_ended", ()):
        _safely(observer, observer.step_ended, outcome, seconds)


def annotate(**about: str | int) -> None:
    """Add facts to the stage that this thread is in."""
    for observer in _watching.get("annotated", ()):
        _safely(observer, observer.annotated, about)


def notify_call(**about: str | int) -> None:
    """Notify the observers of a request to a chart provider's server that has ended."""
    for observer in _watching.get("call_ended", ()):
        _safely(observer, observer.call_ended, about)


class _ObservedStage:
    """One stage. The observers that began it also end it, even if others are registered by then."""

    __slots__ = ("_about", "_begun", "_carrier", "_watching", "_which")

    def __init__(
        self, which: Stage, about: About, carrier: Mapping[str, str], watching: tuple[Observer, ...]
    ) -> None:
        self._which = which
        self._about = about
        self._carrier = carrier
        self._watching = watching
        self._begun: list[tuple[Observer, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for observer in self._watching:
            try:
                begun = observer.stage(self._which, self._about, self._carrier)
                if begun is not None:
                    begun.__enter__()
                    self._begun.append((observer, begun))
            except Exception as error:  # noqa: BLE001 - see `_log_failure`
                _log_failure(observer, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for observer, begun in reversed(self._begun):
            _safely(observer, begun.__exit__, kind, error, where)


def _safely(observer: Observer, method: Callable[..., object], *arguments: object) -> None:
    """Call a method of an observer."""
    try:
        method(*arguments)
    except Exception as error:  # noqa: BLE001 - see `_log_failure`
        _log_failure(observer, error)


def _log_failure(observer: Observer, error: Exception) -> None:
    """Log the failure of an observer, so that the work continues."""
    name = type(observer).__name__
    log.error(Event.INTERNAL_ERROR, f"The observer {name} failed: {error!r:.300}", exc_info=error)
