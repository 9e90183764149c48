"""Read changes of steps and leases from the embedded Firestore's log of commits."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.chaos.end_state import Claim, Transition

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from localcloud.firestore.store import Committed

RUNS = "/documents/flow_runs/"
LEASES = "/chart_export_leases/"
MICROSECONDS = 1_000_000
#: A commit is in the log at the latest so many seconds after its instant.
LATE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class LeaseFacts:
    """The content of a lease document, and when its token was first written (seconds since 1970)."""

    token: str
    owner: str
    acquired_at: float


NO_LEASE = LeaseFacts("", "", 0.0)


def statuses_in(run: Any) -> dict[str, str]:
    """Return the status of each chart step in a raw run document."""
    steps = run.fields["steps"].map_value.fields if "steps" in run.fields else {}
    found = {step_id: step.map_value.fields for step_id, step in steps.items()}
    return {
        step_id: step["status"].string_value
        for step_id, step in found.items()
        if "stepType" in step and step["stepType"].string_value == "CHART_EXPORT"
    }


class History:
    """The changes and claims of steps in a log of commits that grows, and forgets its oldest when it is full.

    Args:
        log: The log.
        foreign: The instants (microseconds since 1970) of the orchestrator's own commits.
    """

    def __init__(self, log: deque[Committed], foreign: Collection[int]) -> None:
        self._log = log
        self._reader = _Reader(foreign)

    def take_out(self) -> None:
        """Read what is older than a few seconds, and remove it from the log."""
        until = time.time_ns() // 1000 - LATE_SECONDS * MICROSECONDS
        taken: list[Committed] = []
        while self._log and self._log[0].instant < until:
            taken.append(self._log.popleft())
        self._reader.read_all(taken)

    def facts(self) -> tuple[tuple[Transition, ...], tuple[Claim, ...]]:
        """Return every change of a chart step's status, and every claim, so far; oldest first."""
        reader = deepcopy(self._reader)
        reader.read_all(list(self._log))
        return tuple(reader.changes), tuple(reader.claims)


class _Reader:
    """Follow runs and leases through the log."""

    def __init__(self, foreign: Collection[int]) -> None:
        self.changes: list[Transition] = []
        self.claims: list[Claim] = []
        self._foreign = foreign
        self._runs: dict[str, Mapping[str, str]] = {}
        self._leases: dict[tuple[str, str], LeaseFacts] = {}

    def read_all(self, commits: Iterable[Committed]) -> None:
        for committed in sorted(commits, key=lambda committed: committed.instant):
            self._read(committed)

    def _read(self, committed: Committed) -> None:
        documents = _written(committed)
        leases = {_step_of(name): document for name, document in documents.items() if LEASES in name}
        runs = {name: document for name, document in documents.items() if LEASES not in name}
        is_foreign = committed.instant in self._foreign
        for name, run in runs.items():
            for change in self._changes(name, run, committed.instant, leases):
                self.changes.append(replace(change, foreign=is_foreign))
        for key, document in leases.items():
            before = self._leases.get(key, NO_LEASE)
            after = _facts(document, before, committed.instant) if document else NO_LEASE
            self._leases[key] = after
            if after.token != before.token and after.token:
                self.claims.append(
                    Claim(at=after.acquired_at, run_id=key[0], step_id=key[1], owner=after.owner)
                )

    def _changes(
        self, name: str, run: Any, instant: int, leases: Mapping[tuple[str, str], Any]
    ) -> Iterator[Transition]:
        before = self._runs.get(name, {})
        after = {} if run is None else statuses_in(run)
        self._runs[name] = after
        run_id = name.partition(RUNS)[2]
        for step_id in before | after:
            if before.get(step_id) == after.get(step_id):
                continue
            key = (run_id, step_id)
            lease = self._leases.get(key, NO_LEASE)
            yield Transition(
                at=instant / MICROSECONDS,
                run_id=run_id,
                step_id=step_id,
                before=before.get(step_id),
                after=after.get(step_id),
                token=lease.token,
                owner=lease.owner,
                acquired_at=lease.acquired_at,
                lease_deleted=lease is not NO_LEASE and key in leases and leases[key] is None,
            )


def _written(committed: Committed) -> dict[str, Any]:
    """Return the runs and leases of one commit by name; None = deleted."""
    documents: dict[str, Any] = dict.fromkeys(committed.changed)
    documents |= {document.name: document for document in committed.documents if document is not None}
    return {name: document for name, document in documents.items() if RUNS in name}


def _step_of(lease_name: str) -> tuple[str, str]:
    run_id, _, step_id = lease_name.partition(RUNS)[2].partition(LEASES)
    return run_id, step_id


def _facts(document: Any, before: LeaseFacts, instant: int) -> LeaseFacts:
    """Read a lease. It is acquired by the first commit with its token; heartbeats only renew it."""
    fields = document.fields
    token = fields["token"].string_value if "token" in fields else ""
    owner = fields["owner"].string_value if "owner" in fields else ""
    is_kept = before is not NO_LEASE and token == before.token
    return LeaseFacts(token, owner, before.acquired_at if is_kept else instant / MICROSECONDS)
