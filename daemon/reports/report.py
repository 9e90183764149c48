"""The report of a run: plain facts, ready to be shown as text, as a table or as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from worker_chart_export.inputs.flow_run import StepStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# Source: https://cloud.google.com/firestore/quotas#limits
MAX_DOCUMENT_BYTES = 1_048_576
FINAL_STATUSES = frozenset(status.value for status in StepStatus if status.is_final)


class Hold(StrEnum):
    """Whether a worker holds a step. The JSON output contains the values."""

    NONE = "none"
    """No lease, and none is needed: the step is not RUNNING."""
    LIVE = "live"
    """A worker holds the step with a valid lease."""
    EXPIRED = "over"
    """The step is RUNNING, but its lease expired without a release."""
    RELEASED = "released"
    """The step is RUNNING, but its worker released the lease."""
    UNLEASED = "unleased"
    """The step is RUNNING without a lease: its worker uses none, or the lease was deleted."""
    LEFT_OVER = "left_over"
    """There is a lease, but the step is not RUNNING. The lease has no effect."""
    RETRY = "retry"
    """An operator has made the step READY again. Its next claim finds this lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSize:
    """The size of a run's document in bytes.

    Attributes:
        now: As it was read.
        finished: When each chart step that is not final has SUCCEEDED. It is more if steps fail, and if the
            orchestrator writes more.
    """

    now: int
    finished: int

    @property
    def exceeds_limit(self) -> bool:
        """Whether the results of all steps are more than Firestore stores in one document."""
        return self.finished > MAX_DOCUMENT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """The lease of a step, by the server's time. Without a lease, all fields but `hold` are None.

    Attributes:
        owner: `host:pid:boot id` of the worker.
        attempt: The number of this claim of the step, from 1.
        released: How many claims ended with a release.
        age_seconds: Seconds since this claim.
        left_seconds: Seconds until the lease expires; negative if it has expired.
    """

    hold: Hold
    owner: str | None = None
    attempt: int | None = None
    released: int | None = None
    age_seconds: float | None = None
    left_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a step or one of its charts failed."""

    code: str
    message: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Charts:
    """The charts of a step, as far as they are known.

    Attributes:
        done: How many charts are stored; None if not known.
        requested: How many charts the step requests; None if not known.
        stored: Template id -> URI, from the manifest.
        failures: Template id -> why it failed, from the manifest.
        unknown_because: Why the bucket could not be read.
    """

    done: int | None
    requested: int | None
    stored: Mapping[str, str]
    failures: Mapping[str, Problem]
    unknown_because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When a step started and finished.

    Attributes:
        started_at: The time of the first claim, from the lease or from the manifest.
        took_seconds: The duration, so far if the step is RUNNING; None if not known or impossible.
        wrong: A text about an impossible time.
    """

    started_at: datetime | None = None
    finished_at: datetime | None = None
    took_seconds: float | None = None
    wrong: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step.

    Attributes:
        status: The status in the run document, which may be an unknown one.
        waits_for: Id -> status of the steps in `dependsOn` that are not SUCCEEDED.
        invalid_because: Why the step can't be read.
        charts: None for a step of another type.
        manifest: The manifest; None if there is none, or if it could not be read.
        attempt: The number of the claim that has the step, or that finished it; None if not known.
        owner: `host:pid:boot id` of the worker of that claim; empty if not known.
    """

    step_id: str
    step_type: str
    timeframe: str
    status: str
    waits_for: Mapping[str, str]
    holding: Holding
    invalid_because: str | None = None
    times: Times = Times()
    charts: Charts | None = None
    error: Problem | None = None
    manifest_uri: str | None = None
    manifest: Mapping[str, Any] | None = None
    attempt: int | None = None
    owner: str = ""

    @property
    def is_final(self) -> bool:
        """Whether the step will not change any more. A step that can't be read counts as final."""
        return self.invalid_because is not None or self.status in FINAL_STATUSES


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run and its steps, each step after the steps it depends on.

    Attributes:
        read_at: The server's time of the read.
        is_final: Whether the run has ended. Its steps that are not RUNNING will not change any more.
        document: The size of its document; None if it was not counted.
        unleased_grace_seconds: `UNLEASED_GRACE_SECONDS` of this environment; None if it is not set there.
    """

    run_id: str
    status: str
    symbol: str
    flow_key: str
    read_at: datetime
    is_final: bool
    steps: tuple[StepReport, ...]
    document: DocumentSize | None = None
    unleased_grace_seconds: float | None = None

    @property
    def chart_steps(self) -> tuple[StepReport, ...]:
        """The CHART_EXPORT steps."""
        return tuple(step for step in self.steps if step.charts is not None)

    @property
    def is_finished(self) -> bool:
        """Whether no chart step will change any more."""
        return all(
            step.is_final or (self.is_final and step.status != StepStatus.RUNNING)
            for step in self.chart_steps
        )

    @property
    def has_failed(self) -> bool:
        """Whether a chart step FAILED or can't be read."""
        return any(
            step.status == StepStatus.FAILED or step.invalid_because is not None for step in self.chart_steps
        )
