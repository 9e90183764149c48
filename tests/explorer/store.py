"""The store of the model: commits with preconditions, as in Firestore, and the rules for each change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.explorer import contents
from tests.explorer.state import (
    ABSENT_GUARD,
    CURRENT,
    DEAD,
    DELETE,
    KEEP,
    NO_GUARD,
    NOBODY,
    STALE,
    WORKING,
    WRITE,
    History,
    LeaseDoc,
    State,
    Step,
    Worker,
    at,
)
from worker_chart_export.ledger.decisions import FinalizeResult, ReleaseResult

if TYPE_CHECKING:
    from tests.explorer.core import Core
    from tests.explorer.state import Plan

FINAL = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"})
WORKERS_CHANGES = frozenset(
    {("READY", "RUNNING"), ("RUNNING", "SUCCEEDED"), ("RUNNING", "FAILED"), ("READY", "FAILED")}
)


class Violation(Exception):
    """An invariant does not hold.

    Args:
        text: What is wrong, with `{}` for each worker.
        workers: The workers, by their numbers in the state; `DEAD` for one that is gone.
    """

    def __init__(self, text: str, *workers: int) -> None:
        super().__init__(text)
        self.text, self.workers = text, workers

    def said(self, names: tuple[int, ...]) -> str:
        """Return the sentence with the numbers that the workers have in a history."""
        who = (f"worker {names[number] + 1}" if number >= 0 else "a late commit" for number in self.workers)
        return self.text.format(*who)


def holds(state: State, plan: Plan) -> bool:
    """Whether the preconditions of a commit hold."""
    if STALE in (plan.run_guard, plan.lease_guard) or (plan.status and not state.run):
        return False
    return plan.lease_guard != ABSENT_GUARD or state.leases[plan.step] is None


def fits(state: State, plan: Plan) -> bool:
    """Whether the run document has room for a commit."""
    return not plan.status or plan.size <= contents.ROOM[state.full]


def commit(state: State, owner: int, plan: Plan, *, by_operator: bool = False) -> State:
    """Return the state after a commit whose preconditions hold.

    Raises:
        Violation: It may not be written.
    """
    number, before = plan.step, state.steps[plan.step]
    lease = state.leases[number]
    if not by_operator:
        _check_commit(state, owner, plan, before, lease)
    history = _history(state.histories[number], plan, before, lease)
    state = state._replace(histories=at(state.histories, number, history))
    if plan.status:
        mark = owner if plan.marks else NOBODY if plan.status != "RUNNING" else before.mark
        after = Step(plan.status, mark)
        if after != before:  # a write that changes nothing keeps the update time
            state = run_changed(state._replace(steps=at(state.steps, number, after)))
    if plan.lease_op == KEEP:
        return state
    if plan.lease_op == DELETE:
        return lease_changed(state, number, None)
    content = contents.with_epoch(plan.lease, history.epoch)
    token_of = contents.owner_of(content, owner if plan.has_token else DEAD)
    return lease_changed(state, number, LeaseDoc(content, token_of))


def _history(history: History, plan: Plan, before: Step, lease: LeaseDoc | None) -> History:
    """Count a claim or a release."""
    if plan.lease_op != WRITE:
        return history
    if plan.has_token and before.status == "READY":
        return History(claims=1, unreleased=1, epoch=history.epoch + 1)
    if plan.has_token:
        return history._replace(claims=history.claims + 1, unreleased=history.unreleased + 1)
    if lease is not None and contents.released(plan.lease) > contents.released(lease.content):
        return history._replace(unreleased=history.unreleased - 1)
    return history


def _check_commit(state: State, owner: int, plan: Plan, before: Step, lease: LeaseDoc | None) -> None:
    is_release = plan.lease_op == WRITE and not plan.has_token
    if is_release and lease is not None and owner not in (lease.owner, DEAD):
        raise Violation("{} releases the lease of another worker", owner)
    if plan.status:
        _check_change(state, owner, plan, before, lease)


def _check_change(state: State, owner: int, plan: Plan, before: Step, lease: LeaseDoc | None) -> None:
    if before.status == plan.status == "RUNNING":
        return
    if (before.status, plan.status) not in WORKERS_CHANGES:
        raise Violation(f"{{}} changes a step from {before.status} to {plan.status}", owner)
    _check_holder(owner, plan, before, lease)
    if plan.status == "SUCCEEDED" and owner >= 0 and state.manifests[plan.step] != owner:
        raise Violation("{} finalizes a step, but the manifest is another worker's", owner)


def _check_holder(owner: int, plan: Plan, before: Step, lease: LeaseDoc | None) -> None:
    """Check that a result is written by the holder of the lease, and a failed claim only after its end."""
    is_result = isinstance(contents.RESULTS.values[plan.result], FinalizeResult | ReleaseResult)
    if lease is not None and lease.owner >= 0 and lease.owner != owner:
        left = contents.LEASES.values[lease.content].expires_at - contents.NOW
        if is_result or (before.status == "RUNNING" and left > -contents.TICK):
            raise Violation("{} ends a step that {} holds", owner, lease.owner)
    if is_result and (lease is None or lease.owner != owner):
        raise Violation("{} ends a step, but its lease was taken away", owner)


def run_changed(state: State) -> State:
    """Return the state after a change of the run: commits that were decided before it lose."""
    workers = tuple(
        w
        if w.plan is None or w.plan.run_guard != CURRENT
        else w._replace(plan=w.plan._replace(run_guard=STALE))
        for w in state.workers
    )
    flights = tuple(
        flight for flight in state.flights if all(plan.run_guard == NO_GUARD for _, plan in flight.parts)
    )
    return state._replace(workers=workers, flights=flights)


def lease_changed(state: State, step: int, lease: LeaseDoc | None) -> State:
    """Return the state with another lease of this step."""
    workers = tuple(_with_stale_lease(worker, step) for worker in state.workers)
    flights = tuple(
        flight
        for flight in state.flights
        if all(plan.step != step or plan.lease_guard != CURRENT for _, plan in flight.parts)
    )
    return state._replace(workers=workers, flights=flights, leases=at(state.leases, step, lease))


def _with_stale_lease(worker: Worker, step: int) -> Worker:
    """Return the worker whose writes to this step's lease lose."""
    plan = worker.plan
    if plan is not None and plan.step == step and plan.lease_guard == CURRENT:
        return worker._replace(plan=plan._replace(lease_guard=STALE))
    if worker.beat == CURRENT and worker.step == step:
        return worker._replace(beat=STALE)
    return worker


def check_state(state: State, core: Core, *, wrong_clocks: frozenset[int] = frozenset()) -> None:
    """Check what must hold at every moment.

    Args:
        state: The state.
        core: The rules, which say who may pay and write.
        wrong_clocks: Workers that may trust their lease too long.

    Raises:
        Violation: It does not.
    """
    for number, history in enumerate(state.histories):
        holders = [
            index
            for index, worker in enumerate(state.workers)
            if worker.phase in WORKING
            and worker.step == number
            and not worker.revoked
            and index not in wrong_clocks
            and core.trusts(worker.lease, worker.trust)
        ]
        if len(holders) > 1:
            raise Violation("{} and {} may both pay and write for the same step", *holders[:2])
        if history.unreleased > contents.TERMS.max_attempts:
            text = f"s{number} was claimed {history.unreleased} times without a release or a result"
            raise Violation(text)
        if history.paid > history.claims:
            raise Violation(
                f"the chart of s{number} was paid for {history.paid} times in {history.claims} claims"
            )
    if state.calls > contents.LIMIT or state.used > contents.LIMIT:
        raise Violation(f"{state.calls} calls were made, {state.used} counted, {contents.LIMIT} allowed")


def is_settled(state: State) -> bool:
    """Whether all work has ended as it should: every step final, every message settled, no lease left."""
    return (
        all(message.settled for message in state.messages)
        and not any(state.leases)
        and all(worker.phase == 0 and not worker.frozen for worker in state.workers)
        and not state.paused
        and (
            state.run in FINAL
            or not state.run
            or all(
                step.status in FINAL or (step.status == "READY" and state.full == len(contents.ROOM) - 1)
                for step in state.steps
            )
        )
    )


def left_over(state: State) -> str:
    """Say what is left of the work in a state."""
    parts = [f"the run is {state.run or 'deleted'}"]
    parts += [f"s{number} is {step.status}" for number, step in enumerate(state.steps)]
    parts += [f"s{number} has a lease" for number, lease in enumerate(state.leases) if lease is not None]
    waiting = [f"m{index + 1}" for index, message in enumerate(state.messages) if not message.settled]
    return ", ".join([*parts, *(f"{name} is not settled" for name in waiting)])
