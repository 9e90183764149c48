"""The intents of many callers on one run, put into one commit. Pure.

Each caller gets a verdict of its own: what is refused leaves at once, what writes shares the commit, and what
can't be decided yet, or touches a step that another intent writes already, waits for the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker_chart_export.errors import BackendRefused, WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_chart_export.ledger.intents import Intent
    from worker_chart_export.ledger.observation import Decision, LeaseWrite, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPlan:
    """What becomes of the intents, each by its place in the sequence given.

    Attributes:
        settled: Results that need no write.
        failed: Errors of their own.
        writing: Decisions that share the commit.
        unread: Those that have to be decided by a read made for this very turn.
        postponed: Those whose step another one writes.
    """

    settled: dict[int, Any] = field(default_factory=dict)
    failed: dict[int, WorkerError] = field(default_factory=dict)
    writing: dict[int, Decision] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)
    postponed: list[int] = field(default_factory=list)

    def run_patch(self) -> Mapping[str, Any]:
        """All patches of the run as one; empty when only leases are written."""
        patch: dict[str, Any] = {}
        for decision in self.writing.values():
            patch |= decision.run_patch or {}
        return patch

    def lease_writes(self) -> dict[int, LeaseWrite]:
        """The writes to leases."""
        return {
            place: decision.lease_write
            for place, decision in self.writing.items()
            if decision.lease_write is not None
        }


def plan_commit(wishes: Sequence[tuple[Intent, Observation]]) -> CommitPlan:
    """Decide on all of them, in the order given, which is the order of who comes first on a step.

    The precondition of a patch proves the run it was decided by. What writes no patch (a refusal, above all)
    is proved by nothing, so an old read is not good enough for it.
    """
    plan = CommitPlan()
    touched: set[str] = set()
    for place, (intent, observation) in enumerate(wishes):
        if intent.step_id in touched:
            plan.postponed.append(place)
            continue
        try:
            decision = intent.decide(observation)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one caller's wish is his alone
            if not observation.run_is_fresh:
                plan.unread.append(place)
            else:
                plan.failed[place] = _own_error(error)
            continue
        if decision is None or (decision.run_patch is None and not observation.run_is_fresh):
            if observation.run_is_fresh:
                plan.failed[place] = BackendRefused("firestore", "a read had no time")
            else:
                plan.unread.append(place)
        elif decision.writes:
            touched.add(intent.step_id)
            plan.writing[place] = decision
        else:
            plan.settled[place] = decision.result
    return plan


def _own_error(error: Exception) -> WorkerError:
    if isinstance(error, WorkerError):
        return error
    return BackendRefused("firestore", f"unexpected {error!r:.200}")
