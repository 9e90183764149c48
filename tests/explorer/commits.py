"""How a worker reads, decides, sends a commit and hears of it: its result, a lost race, or no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.explorer import contents
from tests.explorer.move import Move, killed, settled
from tests.explorer.state import (
    ADOPT,
    CLAIM,
    CLEAR,
    DELETE,
    END,
    GOT,
    PREPARE,
    RELEASE,
    WRITE,
    Flight,
    LeaseDoc,
    Plan,
    Worker,
    at,
)
from tests.explorer.store import FINAL, Violation, commit, fits, holds
from worker_chart_export.ledger.decisions import ClaimResult, FinalizeResult, Reason, ReleaseResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.explorer.core import Core
    from tests.explorer.state import State


#: After so many releases a step fails if a backend is unavailable.
MOST_RELEASES = 10


class CommitMoves:
    """The commits of the workers under these rules."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def put(self, state: State, number: int, worker: Worker) -> State:
        """Return the state with this worker changed."""
        return state._replace(workers=at(state.workers, number, worker))

    def _plan(self, state: State, number: int, worker: Worker, *, fresh: bool = True) -> State:
        """Read and decide. Return the state with the commit to send, or after a result without one."""
        step, core = worker.step, self.core
        run, lease = contents.run_seen_by(state, number), contents.seen_by(state.leases[step], number)
        if worker.phase == CLAIM:
            answer = core.plan_claim(
                run, step, lease, worker.message, worker.form, unknown=worker.unknown, fresh=fresh
            )
        elif worker.phase == END:
            answer = core.plan_finalize(run, step, lease, worker.result, worker.form, unknown=worker.unknown)
        else:
            why = "lost" if worker.phase == CLEAR else worker.why
            answer = core.plan_release(run, step, lease, why, worker.form, unknown=worker.unknown)
        if answer.plan is not None:
            _check_release(number, worker, answer.plan)
            return self.put(state, number, worker._replace(plan=answer.plan))
        if answer.error is not None:
            return self._fails(state, number, worker)
        return self.hears(state, number, worker._replace(plan=None), answer.result)

    def _fails(self, state: State, number: int, worker: Worker) -> State:
        """Return the state after an error of a commit that is final."""
        idle = self.put(state, number, Worker())
        return settled(idle, worker.message, "reject" if worker.phase == CLAIM else "defer")

    def _sends(self, state: State, number: int) -> Iterator[Move]:
        worker = state.workers[number]
        plan, name = worker.plan, _NAMES[worker.phase]
        if plan is None:
            raise AssertionError("unreachable")
        if not holds(state, plan):
            if worker.phase == ADOPT:
                event = "lease_deleted" if plan.lease_op == DELETE else name
                changed = "not: it has changed meanwhile"
                yield Move(number, event, changed, self._after_adopt(state, number, worker))
            else:
                again = self._plan(state, number, worker._replace(plan=None))
                yield Move(number, name, "lost the race, reads again", again)
            return
        if not fits(state, plan):
            yield Move(
                number,
                "backend_refused",
                f"Firestore can't store the {name}",
                self._shortens(state, number, worker),
            )
            return
        landed = commit(state, number, plan)
        if worker.phase == ADOPT:
            yield Move(
                number,
                "lease_deleted" if plan.lease_op == DELETE else name,
                "",
                self._after_adopt(landed, number, worker),
            )
        else:
            result = contents.RESULTS.values[plan.result]
            held = worker._replace(plan=plan)
            event, told = _event(worker, result), self.hears(landed, number, held, result)
            yield Move(number, event, _text(plan, worker), told)
        if state.faults:
            yield from self._disturbed(state, number, plan, landed)

    def _disturbed(self, state: State, number: int, plan: Plan, landed: State) -> Iterator[Move]:
        """Yield what can go wrong while a commit is sent; `landed` is the state after it."""
        worker = state.workers[number]
        said = f"{_NAMES[worker.phase]}: {_text(plan, worker)}"
        yield Move(
            number, "the process is killed", f"just after {said}", killed(landed, number), is_fault=True
        )
        if worker.phase != ADOPT:
            unsure = worker._replace(plan=None, unknown=True)
            yield Move(
                number, "no answer", f"{said} took effect", self.put(landed, number, unsure), is_fault=True
            )
            if not state.flights:
                sent = state._replace(flights=(Flight(((number, plan),)),))
                yield Move(
                    number,
                    "no answer",
                    f"{said} may take effect later",
                    self.put(sent, number, unsure),
                    is_fault=True,
                )

    def _shortens(self, state: State, number: int, worker: Worker) -> State:
        form = self.core.shorter(worker.form)
        if form is None:
            return self._fails(state, number, worker)
        return self._plan(state, number, worker._replace(plan=None, form=form))

    def _verifies(self, state: State, number: int) -> Iterator[Move]:
        """After a commit without an answer: read again; or give up, when Firestore stays unavailable."""
        worker = state.workers[number]
        name = _NAMES[worker.phase]
        yield Move(number, name, "reads again, to find out", self._plan(state, number, worker))
        given_up = self._gives_up(state, number, worker)
        yield Move(number, "backend_unavailable", f"gives the {name} up", given_up, is_fault=True)

    def _gives_up(self, state: State, number: int, worker: Worker) -> State:
        if worker.phase == END:
            return self._plan(
                state, number, worker._replace(phase=RELEASE, why="outage", unknown=False, form=0)
            )
        if worker.phase == CLEAR:
            return self.put(state, number, self._lost(worker))
        idle = self.put(state, number, Worker())
        return settled(idle, worker.message, "nack" if worker.why == "shutdown" else "defer")

    def hears(self, state: State, number: int, worker: Worker, result: object) -> State:
        """Return the state after a worker got the result of its commit, or of a decision without one."""
        match result:
            case ClaimResult():
                return self._hears_claim(state, number, worker, result)
            case FinalizeResult():
                return self._hears_finalize(state, number, worker, result)
            case ReleaseResult():
                return self._hears_release(state, number, worker, result)
            case _:
                raise AssertionError(f"unreachable: {result}")

    def _hears_claim(self, state: State, number: int, worker: Worker, result: ClaimResult) -> State:
        stored = state.leases[worker.step]
        if result.claimed:
            return self._holds(state, number, worker, stored)
        is_mine = (
            stored is not None and stored.owner == number and state.steps[worker.step].status == "RUNNING"
        )
        if is_mine and result.reason in (Reason.STEP_RUNNING, Reason.UNLEASED):
            raise Violation("{} has the step, but was told that it has not", number)
        return self.put(state, number, self._lost(worker))

    def _hears_finalize(self, state: State, number: int, worker: Worker, result: FinalizeResult) -> State:
        step = state.steps[worker.step]
        if not result.updated and state.run and step.mark == number and step.status in FINAL:
            raise Violation("{} has finalized the step, but was told that it has not", number)
        is_wrong = worker.plan is not None and worker.plan.marks and step.mark != number
        if result.updated and is_wrong:
            raise Violation("{} was told that it has finalized the step, but it has not", number)
        done = self.core.done_after(lost=not result.updated, reason=result.reason)
        if done is None or worker.message < 0:
            return self.put(state, number, self._lost(worker))
        return settled(self.put(state, number, Worker()), worker.message, "ack")

    def _hears_release(self, state: State, number: int, worker: Worker, result: ReleaseResult) -> State:
        if worker.phase == CLEAR:
            return self.put(state, number, self._lost(worker))
        what = "nack" if worker.why == "shutdown" else "ack" if result.failed else "defer"
        return settled(self.put(state, number, Worker()), worker.message, what)

    def _holds(self, state: State, number: int, worker: Worker, stored: LeaseDoc | None) -> State:
        if stored is None or stored.owner != number:
            raise Violation("{} was told that it has the step, but it has not", number)
        age = worker.plan.age if worker.plan is not None else 0
        is_stored = bool(state.charts[worker.step] >> contents.epoch_of(stored.content) & 1)
        return self.put(
            state,
            number,
            Worker(
                phase=PREPARE,
                step=worker.step,
                message=worker.message,
                lease=stored.content,
                trust=self.core.trust_seconds(stored.content, age),
                seen=is_stored,
            ),
        )

    def _lost(self, worker: Worker) -> Worker:
        """Return a worker that has lost its step: it reads the run again for its message."""
        return Worker(phase=GOT, message=worker.message, lost=True) if worker.message >= 0 else Worker()

    def _after_adopt(self, state: State, number: int, worker: Worker) -> State:
        return settled(self.put(state, number, Worker()), worker.message, "ack")


def _check_release(number: int, worker: Worker, plan: Plan) -> None:
    is_for_backend = worker.phase == RELEASE and worker.why == "outage" and plan.lease_op == WRITE
    if is_for_backend and (times := contents.released(plan.lease)) > MOST_RELEASES:
        raise Violation(f"{{}} releases a step for a backend, which is release {times} of it", number)


_NAMES = {CLAIM: "claim", END: "finalize", RELEASE: "release", CLEAR: "clear", ADOPT: "step_unleased"}


def _event(worker: Worker, result: object) -> str:
    match result:
        case ClaimResult(claimed=True):
            return "claim_attempt"
        case ClaimResult() | FinalizeResult(updated=True) | ReleaseResult(failed=True):
            return "step_completed"
        case ReleaseResult(released=True):
            return "lease_released"
        case _:
            return "lease_deleted" if worker.phase == CLEAR else "finalize_refused"


def _text(plan: Plan, worker: Worker) -> str:
    parts = [f"s{plan.step}"]
    if plan.status:
        parts.append(f"is {plan.status}")
    if plan.lease_op == WRITE:
        lease = contents.LEASES.values[plan.lease]
        parts.append(f"attempt {lease.attempt}" if lease.token else f"released {lease.released}")
    elif plan.lease_op == DELETE:
        parts.append("lease deleted")
    return ", ".join(parts) + (f" ({worker.why})" if worker.why else "")
