"""The facts about a world whose work has ended, read from it or written by hand."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Key, Item = TypeVar("Key"), TypeVar("Item")

SUCCEEDED = frozenset({"SUCCEEDED"})
#: In place of a status: the run, or its step, was deleted.
GONE = "GONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A step and its allowed ends.

    Attributes:
        run_id: Its run.
        step_id: Its id.
        template_ids: Its charts, in the requested order.
        statuses: Its allowed final statuses; `GONE` = deleted.
        meddled: The orchestrator reset, cancelled or deleted it: paid charts of the discarded work may be
            left in the bucket.
    """

    run_id: str
    step_id: str
    template_ids: tuple[str, ...]
    statuses: frozenset[str] = SUCCEEDED
    meddled: bool = False

    @property
    def prefix(self) -> str:
        """Return the common prefix of its object names."""
        return f"charts/{self.run_id}/{self.step_id}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One change of a step's status, and the lease at that moment.

    Attributes:
        at: Commit time, seconds since 1970.
        run_id: The run.
        step_id: The step.
        before: The status before; None = the step did not exist.
        after: The status after; None = deleted.
        foreign: Written by the orchestrator and not by a worker.
        token: The token of the step's lease just before the commit; empty without a lease.
        owner: The owner of that lease; empty without one.
        acquired_at: The start of that lease, seconds since 1970.
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
class Claim:
    """A claim of a step that was won: its commit time (seconds since 1970), and the owner of its lease."""

    at: float
    run_id: str
    step_id: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """An object in the bucket. Only manifests have `content`; times are in seconds since 1970."""

    created: float
    updated: float
    content: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidChart:
    """A chart that the provider returned: its template, daemon, process and time of the request."""

    template_id: str
    daemon: str
    at: float
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """A disturbance of one daemon, or of all (`daemon` empty), that can cost charts in flight."""

    kind: str
    at: float
    until: float
    daemon: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A daemon's log entry that it finished a step."""

    pid: int
    run_id: str
    step_id: str


@dataclass(frozen=True, kw_only=True)
class EndState:
    """All facts of one world.

    Attributes:
        bucket: The charts bucket's name.
        expected: The requested steps.
        runs: The current runs; None = deleted.
        transitions: From the log of commits, oldest first; None on a cloud without such a log.
        claims: From the same log.
        leases: Paths of the remaining lease documents.
        files: The bucket's objects under `charts/`.
        paid: The charts that were paid for, oldest first.
        disturbances: The disturbances of the daemons.
        unacked: Unsettled messages; None = unknown.
        completions: The steps that daemons logged as finished.
        oddities: Things that no daemon may log or do, one sentence each.
        clock_slack_seconds: The intended error of the daemons' clocks.
    """

    bucket: str
    expected: tuple[Expected, ...]
    runs: Mapping[str, Mapping[str, Any] | None]
    transitions: tuple[Transition, ...] | None
    claims: tuple[Claim, ...] = ()
    leases: tuple[str, ...] = ()
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    paid: tuple[PaidChart, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()
    unacked: int | None = 0
    completions: tuple[Completion, ...] = ()
    oddities: tuple[str, ...] = ()
    clock_slack_seconds: float = 0.0

    def step(self, expected: Expected) -> Mapping[str, Any] | None:
        """Return the current step; None = it does not exist."""
        run = self.runs.get(expected.run_id)
        step: Mapping[str, Any] | None = run["steps"].get(expected.step_id) if run else None
        return step

    def path(self, expected: Expected) -> list[Transition]:
        """Return the changes of one step's status."""
        return self._paths.get((expected.run_id, expected.step_id), [])

    def claims_of(self, expected: Expected) -> list[Claim]:
        """Return the claims of one step that were won."""
        return self._claims.get((expected.run_id, expected.step_id), [])

    def files_of(self, expected: Expected) -> Mapping[str, StoredFile]:
        """Return one step's objects by name."""
        return self._folders.get(expected.prefix, {})

    def paid_for(self, template_id: str) -> list[PaidChart]:
        """Return the charts of one template that were paid for."""
        return self._paid.get(template_id, [])

    @cached_property
    def _paths(self) -> Mapping[tuple[str, str], list[Transition]]:
        return _grouped(self.transitions or (), lambda change: (change.run_id, change.step_id))

    @cached_property
    def _claims(self) -> Mapping[tuple[str, str], list[Claim]]:
        return _grouped(self.claims, lambda claim: (claim.run_id, claim.step_id))

    @cached_property
    def _paid(self) -> Mapping[str, list[PaidChart]]:
        return _grouped(self.paid, lambda paid: paid.template_id)

    @cached_property
    def _folders(self) -> Mapping[str, dict[str, StoredFile]]:
        names = _grouped(self.files, folder_of)
        return {folder: {name: self.files[name] for name in found} for folder, found in names.items()}

    def last_final(self, expected: Expected) -> Transition | None:
        """Return the worker's last change of the step to a final status."""
        finals = [change for change in self.path(expected) if is_finalize(change)]
        return finals[-1] if finals else None


def pid_in(owner: str) -> int:
    """Return the process id in an owner, `host:pid:boot id`; 0 when there is none."""
    parts = owner.rsplit(":", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0


def is_finalize(change: Transition) -> bool:
    """Return whether this is a worker's change to a final status."""
    return not change.foreign and change.after in {"SUCCEEDED", "FAILED"}


def folder_of(name: str) -> str:
    """Return an object's name up to its last slash, with it."""
    return name[: name.rfind("/") + 1]


def _grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: defaultdict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups
