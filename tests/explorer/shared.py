"""Two threads of one process: their commits can be one, and what ends the process ends both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.explorer import contents
from tests.explorer.move import Move, killed
from tests.explorer.state import CLAIM, CLEAR, END, RELEASE, Flight
from tests.explorer.store import Violation, commit, fits, holds
from tests.explorer.translation import translated
from worker_chart_export.ledger.commit.plan import CommitRequest, plan_commit
from worker_chart_export.ledger.run_snapshot import RunSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.explorer.moves import WorkerMoves
    from tests.explorer.state import Plan, State

PAIR = (0, 1)


def shared_moves(moves: WorkerMoves, state: State) -> Iterator[Move]:
    """Yield the moves of the first two workers together, which are threads of one process."""
    if any(state.workers[number].frozen for number in PAIR):
        return
    plans = _plans(moves, state)
    if plans is not None:
        landed = state
        for number, plan in plans.items():
            landed = commit(landed, number, plan)
        told, unsure = landed, landed
        late = state._replace(flights=(Flight(tuple(plans.items())),))
        for number, plan in plans.items():
            worker = state.workers[number]
            result = contents.RESULTS.values[plan.result]
            told = moves.hears(told, number, worker._replace(plan=plan._replace(age=0)), result)
            asking = worker._replace(plan=None, unknown=True)
            unsure, late = moves.put(unsure, number, asking), moves.put(late, number, asking)
        yield Move(0, "one commit for both threads", "", told)
        yield Move(0, "no answer", "one commit for both threads took effect", unsure, is_fault=True)
        if not state.flights:
            yield Move(
                0, "no answer", "one commit for both threads may take effect later", late, is_fault=True
            )
    both = state
    for number in PAIR:
        both = killed(both, number)
    if both != state:
        yield Move(0, "the process is killed", "both threads", both, is_fault=True)


def _plans(moves: WorkerMoves, state: State) -> dict[int, Plan] | None:
    """Return the commits that go into one, by worker; None: they can't share one now."""
    pair = [state.workers[number] for number in PAIR]
    if pair[0].step == pair[1].step:
        return None
    for worker in pair:
        if worker.phase not in (CLAIM, END, RELEASE, CLEAR) or worker.plan is None:
            return None
        if not holds(state, worker.plan) or not fits(state, worker.plan):
            return None
    requests = {
        number: CommitRequest(
            intent=moves.core.intent_of(state.workers[number]),
            snapshot=None,
            held=None,
            outcome_unknown=state.workers[number].unknown,
        )
        for number in PAIR
    }
    ordered = sorted(requests.values(), key=lambda request: request.intent.rank)
    plan = plan_commit(ordered, _snapshot(state), is_fresh=True)
    if set(plan.writing) != set(ordered):
        return None
    apart = [dict(decision.run_patch or {}) for decision in plan.writing.values()]
    if plan.run_patch != apart[0] | apart[1] or len(plan.lease_writes) != len(PAIR):
        raise Violation("the shared commit of {} and {} does not hold what each of them wants", *PAIR)
    return {
        number: translated(
            plan.writing[request], contents.run_seen_by(state, number), state.workers[number].step
        )
        for number, request in requests.items()
    }


def _snapshot(state: State) -> RunSnapshot:
    """Return a read of the run with the leases of both steps, each as its thread knows it."""
    snapshots = []
    for number in PAIR:
        step = state.workers[number].step
        lease = contents.seen_by(state.leases[step], number)
        snapshots.append(contents.snapshot_of(contents.run_seen_by(state, number), step, lease))
    first, second = snapshots
    return RunSnapshot(
        run=first.run,
        update_time=first.update_time,
        read_time=first.read_time,
        asked_at=first.asked_at,
        leases={**first.leases, **second.leases},
    )
