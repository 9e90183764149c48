"""What the page remembers of a step: while it is worked, and after it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from worker_chart_export.descriptions import describe
from worker_chart_export.errors import RequestError
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.observability.observers import Stage

if TYPE_CHECKING:
    from worker_chart_export.observability.observers import About


#: So many stored and so many failed charts of a step are noted one by one, and so many signs of their words;
#: the others are counted.
MAX_NOTES = 100
MAX_WORDS = 300


class Result(StrEnum):
    """How a step ended, as far as this worker is concerned."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    #: It is another worker's now, or nobody's: this one's work did not count.
    LOST = "LOST"
    #: Given back, for a backend that is away or because the worker stops; somebody takes it over.
    RELEASED = "RELEASED"
    #: It had to be given back, and Firestore did not take that: somebody takes it over once its lease ends.
    UNRELEASED = "UNRELEASED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartNote:
    """A stored chart.

    Attributes:
        thumbnail: The number under which `Thumbnails` may still have it; None for an earlier attempt's.
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
    """A step while it is worked. Written by the threads that work it, under the activity's lock.

    Attributes:
        number: Tells it apart from every other, also of this worker's earlier processes.
        is_rescue: Whether it came by no message, and so takes no slot.
        began: Wall clock, in seconds since 1970.
        stage: The last stage of the step that began; those of single charts stand in `doing`.
        requested: How many charts it asks for, once that is known.
        doing: By template: what its chart is at.
        charts: The first `MAX_NOTES` of those stored.
        stored: How many charts are stored.
        failures: The first `MAX_NOTES` of those failed.
        failed: How many charts have failed.
    """

    number: int
    run_id: str
    step_id: str
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
        """A stage of the step or of one of its charts begins."""
        if stage in (Stage.CALL, Stage.UPLOAD, Stage.CHART):
            self.doing[str(about["chartTemplateId"])] = stage
        if stage not in (Stage.CALL, Stage.UPLOAD):
            self.stage = stage
        if "attempt" in about:
            self.attempt = int(about["attempt"])
        if "requested" in about:
            self.requested = int(about["requested"])

    def end_chart(self, template_id: str, error: BaseException | None) -> bool:
        """Whether a chart has failed; what stops the step as a whole is no chart's failure."""
        self.doing.pop(template_id, None)
        if not isinstance(error, RequestError):
            return False
        self.failed += 1
        if len(self.failures) < MAX_NOTES:
            words = error.message[:MAX_WORDS]
            self.failures.append(FailureNote(template_id=template_id, code=error.code.value, message=words))
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedStep:
    """A step that has ended; names as in `StepWork`.

    Attributes:
        code: The error code of a FAILED one.
        reason: What went wrong, in words; empty for a SUCCEEDED one.
        charts: By template id, so that those of different steps can be compared.
        ended: Wall clock, in seconds since 1970.
    """

    number: int
    run_id: str
    step_id: str
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


def finished(work: StepWork, error: BaseException | None, *, now: float) -> FinishedStep | None:
    """What remains of a step's work; None when the step was never this worker's."""
    outcome = work.outcome
    if outcome is None:
        return None
    result, code, reason = _verdict(outcome, error)
    return FinishedStep(
        number=work.number,
        run_id=work.run_id,
        step_id=work.step_id,
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


def _verdict(outcome: Outcome, error: BaseException | None) -> tuple[Result, str, str]:
    match outcome.kind:
        case OutcomeKind.SUCCEEDED:
            return Result.SUCCEEDED, "", ""
        case OutcomeKind.FAILED:
            told = outcome.error
            return Result.FAILED, str(told.code) if told else "", told.message if told else ""
        case OutcomeKind.RELEASED:
            return Result.RELEASED, "", str(error or "")
        case OutcomeKind.NOT_RELEASED:
            return Result.UNRELEASED, "", str(error or "")
        case _:
            reason = str(outcome.reason or "")
            return Result.LOST, "", describe(reason) or reason
