"""What is left when everything has calmed down: plain facts, gathered from a world or made by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

SUCCEEDED = frozenset({"SUCCEEDED"})
#: Instead of a status: the run, or the step in it, was deleted.
GONE = "GONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A step, and what may have become of it.

    Attributes:
        run_id: Its run.
        step_id: Its id.
        template_ids: Its charts, in the order asked.
        statuses: Where it may have ended; `GONE` = deleted.
        meddled: The orchestrator reset, cancelled or deleted it: charts of the work it threw away may be
            left in the bucket, and were paid for.
    """

    run_id: str
    step_id: str
    template_ids: tuple[str, ...]
    statuses: frozenset[str] = SUCCEEDED
    meddled: bool = False

    @property
    def prefix(self) -> str:
        """The common beginning of its object names."""
        return f"charts/{self.run_id}/{self.step_id}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One change of a step's status, and the lease at that moment.

    Attributes:
        at: Commit time, seconds since 1970.
        run_id: The run.
        step_id: The step.
        before: The status before; None = there was no such step.
        after: The status after; None = deleted.
        foreign: Written by the orchestrator and not by a worker.
        token: Of the step's lease just before the commit; empty without one.
        owner: Its owner; empty without one.
        acquired_at: When that lease was taken, seconds since 1970.
        lease_deleted: The same commit deleted the lease.
    """

    at: float
    run_id: str
    step_id: str
    before: str | None
    after: str | None
    foreign: bool = False
    token: str = ""
    owner: str = ""
    acquired_at: float = 0.0
    lease_deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """An object in the bucket: `content` of manifests only; times in seconds since 1970."""

    created: float
    updated: float
    content: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidChart:
    """A chart that the provider gave: of which template, to which daemon, asked for when."""

    template_id: str
    daemon: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """Something done to a daemon, or (`daemon` empty) to all of them, that may cost a chart in flight."""

    kind: str
    at: float
    until: float
    daemon: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A daemon's own word that it finished a step."""

    pid: int
    run_id: str
    step_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndState:
    """All of it.

    Attributes:
        bucket: The charts bucket's name.
        expected: The steps that were asked for.
        runs: The runs as they are now; None = deleted.
        transitions: From the log of commits, oldest first; None on a cloud that keeps no such log.
        leases: Paths of the lease documents that are left.
        files: The bucket's objects under `charts/`.
        paid: The charts that were paid for, oldest first.
        blows: What was done to the daemons.
        unacked: Messages not settled yet; None = unknown.
        completions: What the daemons say they finished.
        oddities: What no daemon should ever have said or done, one sentence each.
        clock_slack_seconds: How far the daemons' clocks were set wrong on purpose.
    """

    bucket: str
    expected: tuple[Expected, ...]
    runs: Mapping[str, Mapping[str, Any] | None]
    transitions: tuple[Transition, ...] | None
    leases: tuple[str, ...] = ()
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    paid: tuple[PaidChart, ...] = ()
    blows: tuple[Blow, ...] = ()
    unacked: int | None = 0
    completions: tuple[Completion, ...] = ()
    oddities: tuple[str, ...] = ()
    clock_slack_seconds: float = 0.0

    def step(self, expected: Expected) -> Mapping[str, Any] | None:
        """The step as it is now; None = gone."""
        run = self.runs.get(expected.run_id)
        step: Mapping[str, Any] | None = run["steps"].get(expected.step_id) if run else None
        return step

    def path(self, expected: Expected) -> list[Transition]:
        """The changes of one step's status."""
        ids = (expected.run_id, expected.step_id)
        return [change for change in self.transitions or () if (change.run_id, change.step_id) == ids]

    def last_final(self, expected: Expected) -> Transition | None:
        """The worker's last change of the step to a final status."""
        finals = [change for change in self.path(expected) if is_finalize(change)]
        return finals[-1] if finals else None


def is_finalize(change: Transition) -> bool:
    """Whether a worker ended the step by it."""
    return not change.foreign and change.after in {"SUCCEEDED", "FAILED"}
