"""What happens around the workers: time, Pub/Sub, orchestrator, operator, kills, freezes, late commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.explorer import contents
from tests.explorer.move import Move, killed
from tests.explorer.moves import WorkerMoves
from tests.explorer.shared import shared_moves
from tests.explorer.state import (
    DEAD,
    EMPTY,
    IDLE,
    IN_CALL,
    NOBODY,
    WORKING,
    WRITE,
    Flight,
    History,
    LeaseDoc,
    Message,
    Plan,
    State,
    Step,
    Worker,
    at,
)
from tests.explorer.store import FINAL, commit, fits, holds, run_changed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.explorer.core import Core


TICK_SECONDS = 60
OLDEST = 3


class Moves:
    """All moves from a state.

    Args:
        core: The contents.
        slow: Workers whose clock stands still.
        faults: The disturbances that may happen; None: all.
        shares: The first two workers are threads of one process.
    """

    def __init__(
        self,
        core: Core,
        *,
        slow: frozenset[int] = frozenset(),
        faults: frozenset[str] | None = None,
        shares: bool = False,
    ) -> None:
        self.core = core
        self.slow = slow
        self.faults = faults
        self.shares = shares
        self._workers = WorkerMoves(core)

    def of(self, state: State) -> Iterator[Move]:
        """Yield all moves, each with the state after it."""
        for number in range(len(state.workers)):
            yield from self._spent(state, self._workers.of(state, number))
            yield from self._spent(state, self._to_worker(state, number))
        if self.shares:
            yield from self._spent(state, shared_moves(self._workers, state))
        yield from self._spent(state, self._of_outsiders(state))

    def _spent(self, state: State, moves: Iterator[Move]) -> Iterator[Move]:
        """Yield the moves that may happen; a disturbance costs one of those that are left."""
        for move in moves:
            if not move.is_fault:
                yield move
            elif state.faults and (self.faults is None or move.event in self.faults):
                yield move._replace(state=move.state._replace(faults=state.faults - 1))

    def _to_worker(self, state: State, number: int) -> Iterator[Move]:
        worker = state.workers[number]
        if worker.phase == IDLE or not state.faults:
            return
        yield Move(number, "the process is killed", "", killed(state, number), is_fault=True)
        if not worker.frozen:
            frozen = state._replace(workers=at(state.workers, number, worker._replace(frozen=True)))
            yield Move(number, "the process is frozen", "", frozen, is_fault=True)

    def _of_outsiders(self, state: State) -> Iterator[Move]:
        if all(self._may_wait(worker, number) for number, worker in enumerate(state.workers)):
            after = self._tick(state)
            if after != state:
                yield Move(-1, "a minute passes", "", after)
        for flight in state.flights:
            dropped = state._replace(flights=())
            yield Move(-1, "the late commit never arrives", "", dropped)
            if all(holds(state, plan) and fits(state, plan) for _, plan in flight.parts):
                yield Move(-1, "the late commit takes effect", "", _landed(dropped, flight))
        if state.paused:
            yield Move(-1, "intake_resumed", "", state._replace(paused=False))
        if state.faults:
            yield from self._pubsub(state)
            yield from self._orchestrator(state)
            yield from self._operator(state)

    # Time.

    def _may_wait(self, worker: Worker, number: int) -> bool:
        """Whether a minute may pass for a worker: its calls take less, and it renews its lease in time."""
        if worker.frozen or worker.phase == IDLE:
            return True
        if worker.phase in IN_CALL or worker.beat >= 0:
            return False
        return worker.beat_failed or worker.trust > TICK_SECONDS or number in self.slow

    def _tick(self, state: State) -> State:
        frozen = {worker.message for worker in state.workers if worker.frozen}
        messages = tuple(
            message
            if message.settled
            else message._replace(
                queued=message.queued or message.deferred or index in frozen,
                deferred=False,
                age=min(OLDEST, message.age + 1),
            )
            for index, message in enumerate(state.messages)
        )
        return state._replace(
            leases=tuple(
                lease and lease._replace(content=contents.later(lease.content)) for lease in state.leases
            ),
            messages=messages,
            workers=tuple(self._older(worker, number) for number, worker in enumerate(state.workers)),
            flights=tuple(_older_flight(flight) for flight in state.flights),
        )

    def _older(self, worker: Worker, number: int) -> Worker:
        if worker.phase == IDLE:
            return worker
        passed = 0 if number in self.slow else TICK_SECONDS
        return worker._replace(
            trust=max(-TICK_SECONDS, worker.trust - passed) if worker.phase in WORKING else worker.trust,
            plan=worker.plan and _older_plan(worker.plan),
            beat_age=min(OLDEST, worker.beat_age + 1) if worker.beat >= 0 else 0,
        )

    # Pub/Sub, the orchestrator, an operator.

    def _pubsub(self, state: State) -> Iterator[Move]:
        held = {worker.message for worker in state.workers}
        for index, message in enumerate(state.messages):
            if index in held and not message.settled and not message.queued:
                twice = at(state.messages, index, message._replace(queued=True))
                yield Move(
                    -1, "delivered twice", f"m{index + 1}", state._replace(messages=twice), is_fault=True
                )

    def _orchestrator(self, state: State) -> Iterator[Move]:
        if not state.run:
            return
        everyone = range(len(state.steps))
        gone = _revoked(run_changed(state._replace(run="")), everyone)
        yield Move(-1, "the run is deleted", "", gone, is_fault=True)
        if state.run not in FINAL:
            cancelled = _revoked(run_changed(state._replace(run="CANCELLED")), everyone)
            yield Move(-1, "the run is cancelled", "", cancelled, is_fault=True)
        for number, step in enumerate(state.steps):
            if step.status not in FINAL:
                changed = state._replace(steps=at(state.steps, number, step._replace(status="CANCELLED")))
                revoked = _revoked(run_changed(changed), (number,))
                yield Move(-1, "the step is cancelled", f"s{number}", revoked, is_fault=True)
            if step.status != "READY" and state.run not in FINAL:
                changed = state._replace(steps=at(state.steps, number, Step("READY")))
                reset = _new_life(_revoked(run_changed(changed), (number,)), number)
                yield Move(-1, "the step is READY again", f"s{number}", reset, is_fault=True)
        for level in range(state.full + 1, len(contents.ROOM)):
            full = run_changed(state._replace(full=level))
            yield Move(-1, "the run document fills up", f"room {contents.ROOM[level]}", full, is_fault=True)

    def _operator(self, state: State) -> Iterator[Move]:
        if not state.paused:
            yield Move(-1, "intake_paused", "by an operator", state._replace(paused=True), is_fault=True)
        run = contents.run_seen_by(state, DEAD - 100)
        for number, step in enumerate(state.steps):
            lease = contents.seen_by(state.leases[number], DEAD - 100)
            if step.status == "RUNNING":
                answer = self.core.plan_for_operator("release", run, number, lease)
                if answer.plan is not None:
                    released = commit(state, DEAD, answer.plan, by_operator=True)
                    yield Move(
                        -1,
                        "release",
                        f"an operator releases s{number}",
                        _revoked(released, (number,)),
                        is_fault=True,
                    )
            if step.status == "FAILED":
                answer = self.core.plan_for_operator(
                    "retry", run, number, lease, state.histories[number].epoch
                )
                if answer.plan is not None and fits(state, answer.plan):
                    again = _new_life(commit(state, DEAD, answer.plan, by_operator=True), number)
                    yield Move(-1, "retry", f"an operator retries s{number}", again, is_fault=True)


def _landed(state: State, flight: Flight) -> State:
    """Return the state after a late commit."""
    for owner, plan in flight.parts:
        state = commit(state, owner, plan)
    return state


def _older_flight(flight: Flight) -> Flight:
    return Flight(tuple((owner, _older_plan(plan)) for owner, plan in flight.parts))


def _older_plan(plan: Plan) -> Plan:
    lease = contents.later(plan.lease) if plan.lease_op == WRITE else plan.lease
    return plan._replace(lease=lease, age=min(OLDEST, plan.age + 1))


def _revoked(state: State, steps: range | tuple[int, ...]) -> State:
    """Return the state in which the holders of these steps no longer have them."""
    workers = tuple(
        w._replace(revoked=True) if w.phase in WORKING and w.step in steps else w for w in state.workers
    )
    return state._replace(workers=workers)


def _new_life(state: State, number: int) -> State:
    """Return the state in which the step starts anew: another message names it."""
    workers = tuple(
        w._replace(ghost=True) if w.phase in WORKING and w.step == number else w for w in state.workers
    )
    return state._replace(
        workers=workers,
        messages=_published(state, number),
        histories=at(state.histories, number, History(epoch=state.histories[number].epoch)),
    )


def _published(state: State, number: int) -> tuple[Message, ...]:
    """Return the messages with a new one for this step, in the place of a settled one that nothing names."""
    held = {worker.message for worker in state.workers}
    for index, message in enumerate(state.messages):
        if message.step == number and message.settled and index not in held and state.leases[number] is None:
            return at(state.messages, index, Message(step=number))
    return (*state.messages, Message(step=number))


def first_state(
    *,
    workers: int,
    steps: int,
    faults: int,
    messages: int = 1,
    status: str = "READY",
    releases: int = 0,
) -> State:
    """Return the state in which the messages have just been published.

    Args:
        workers: How many.
        steps: How many.
        faults: How many disturbances may happen.
        messages: How many name each step.
        status: The status of the steps. RUNNING: a worker without leases has taken them, and has ended.
        releases: How often each step, then RUNNING, was released before for a backend.
    """
    released = LeaseDoc(contents.released_often(releases), EMPTY) if releases else None
    return State(
        run="RUNNING",
        full=0,
        steps=(Step("RUNNING" if releases else status),) * steps,
        leases=(released,) * steps,
        charts=(0,) * steps,
        manifests=(NOBODY,) * steps,
        used=-1,
        calls=0,
        messages=tuple(Message(step=step) for _ in range(messages) for step in range(steps)),
        workers=(Worker(),) * workers,
        flights=(),
        faults=faults,
        paused=False,
        histories=(History(),) * steps,
    )
