"""The facts about a run that an operator asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from worker_chart_export.inputs.flow_run import StepStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Hold(StrEnum):
    """Who has a step."""

    NONE = "none"
    """Nobody, and nobody should: it is not RUNNING."""
    LIVE = "live"
    """A worker, whose lease lasts."""
    OVER = "over"
    """Nobody any more: the lease of a RUNNING step ended without a release."""
    RELEASED = "released"
    """Nobody any more: its worker gave the RUNNING step back."""
    UNLEASED = "unleased"
    """A RUNNING step without a lease: whoever claimed it keeps none, or lost it."""
    LEFT_OVER = "left_over"
    """A lease whose step is not RUNNING: of no effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Who has a step, by the server's time.

    Attributes:
        owner: host:pid:boot id; None without a lease. The same for the counts and times.
        attempt: Which claim of the step it is, from 1.
        released: How many of them ended in a release.
        age_seconds: Since this claim.
        left_seconds: Until the lease is over; negative since then.
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
    """A step's charts, as far as they are known.

    Attributes:
        done: How many are stored; None if that could not be found out.
        requested: How many are wanted; None if the step does not say.
        stored: Template id -> URI, from the manifest.
        failures: Template id -> why, from the manifest.
        unknown_because: Why the bucket could not be read.
    """

    done: int | None
    requested: int | None
    stored: Mapping[str, str]
    failures: Mapping[str, Problem]
    unknown_because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When a step was worked.

    Attributes:
        started_at: The first claim, from the lease or else from the manifest.
        took_seconds: So far if it is RUNNING; None if it is not known, or can't be.
        wrong: What can't be, in words.
    """

    started_at: datetime | None = None
    finished_at: datetime | None = None
    took_seconds: float | None = None
    wrong: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step.

    Attributes:
        status: As the run has it, even if it is none that we know.
        waits_for: Id -> status of the steps in `dependsOn` that are not SUCCEEDED.
        invalid_because: Why it can't be read as a step.
        charts: None for a step that is no chart step.
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

    @property
    def is_final(self) -> bool:
        """Whether nothing will become of it any more; so it is with one that can't be read."""
        return self.invalid_because is not None or (
            self.status in set(StepStatus) and StepStatus(self.status).is_final
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run and its steps, each after those it depends on.

    Attributes:
        read_at: The server's time.
        is_final: Whether the orchestrator is done with it: what is not RUNNING stays as it is.
    """

    run_id: str
    status: str
    symbol: str
    flow_key: str
    read_at: datetime
    is_final: bool
    steps: tuple[StepReport, ...]

    @property
    def chart_steps(self) -> tuple[StepReport, ...]:
        """The CHART_EXPORT steps."""
        return tuple(step for step in self.steps if step.charts is not None)

    @property
    def is_settled(self) -> bool:
        """Whether nothing more will become of the chart steps."""
        return all(
            step.is_final or (self.is_final and step.status != StepStatus.RUNNING)
            for step in self.chart_steps
        )

    @property
    def has_failed(self) -> bool:
        """Whether a chart step FAILED, or can't be read."""
        return any(
            step.status == StepStatus.FAILED or step.invalid_because is not None for step in self.chart_steps
        )
