"""All that a worker can do next, and what can happen to it. Each move is a pure function of the state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.handling.step_state import RescueAction
from tests.explorer import contents
from tests.explorer.commits import CommitMoves
from tests.explorer.move import Move, forget, settled
from tests.explorer.state import (
    ABSENT_GUARD,
    ADOPT,
    CLAIM,
    CLEAR,
    COUNT,
    CURRENT,
    DELETE,
    END,
    GOT,
    IDLE,
    MANIFEST,
    NOBODY,
    PAY,
    PREPARE,
    RELEASE,
    REPLACE,
    STALE,
    UPLOAD,
    WORKING,
    WRITE,
    LeaseDoc,
    Worker,
    at,
    lease_only,
)
from tests.explorer.store import Violation, lease_changed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.explorer.state import State


class WorkerMoves(CommitMoves):
    """The moves of the workers under these rules."""

    def of(self, state: State, number: int) -> Iterator[Move]:
        """Yield all moves of one worker."""
        worker = state.workers[number]
        if worker.frozen:
            yield Move(number, "wakes", "", self.put(state, number, worker._replace(frozen=False)))
            return
        if worker.phase == IDLE:
            yield from self._starts(state, number)
        elif worker.phase == GOT:
            yield self._look(state, number, worker.message, lost=True)
        elif worker.phase in WORKING:
            yield from self._works(state, number)
            yield from self._beats(state, number)
        elif worker.plan is not None:
            yield from self._sends(state, number)
        else:
            yield from self._verifies(state, number)

    # From a message or an expired lease to a claim.

    def _starts(self, state: State, number: int) -> Iterator[Move]:
        if state.paused:
            return
        for index, message in enumerate(state.messages):
            if message.queued:
                taken = state._replace(messages=at(state.messages, index, message._replace(queued=False)))
                yield self._look(taken, number, index, lost=False)
        for step, lease in enumerate(state.leases):
            if lease is not None and self.core.is_found(lease.content):
                yield from self._rescues(state, number, step, lease)

    def _rescues(self, state: State, number: int, step: int, lease: LeaseDoc) -> Iterator[Move]:
        seen = contents.seen_by(lease, number)
        action = self.core.on_expired(contents.run_seen_by(state, number), step, seen)
        if action is RescueAction.DELETE:
            plan = lease_only(step, DELETE, -1, CURRENT)
            worker = Worker(phase=ADOPT, step=step, plan=plan)
            yield Move(number, "lease_found", f"s{step} is not RUNNING", self.put(state, number, worker))
        elif action is RescueAction.TAKE_OVER:
            yield self._claim(state, number, Worker(step=step), f"rescue finds the lease of s{step} expired")

    def _look(self, state: State, number: int, index: int, *, lost: bool) -> Move:
        """Read the run for a message, and do what the handler says."""
        if index < 0:  # a rescue
            return Move(number, "rescue_ended", "", self.put(state, number, Worker()))
        message = state.messages[index]
        run = contents.run_seen_by(state, number)
        lease = contents.seen_by(state.leases[message.step], number)
        verdict = self.core.on_message(run, message.step, lease, index, message.age, lost=lost)
        said = f"m{index + 1}"
        if verdict.what == "claim":
            return self._claim(state, number, Worker(step=message.step, message=index), said)
        if verdict.what == "adopt":
            plan = lease_only(message.step, WRITE, contents.adopted(), ABSENT_GUARD)
            worker = Worker(phase=ADOPT, step=message.step, message=index, plan=plan)
            return Move(number, "step_unleased", said, self.put(state, number, worker))
        idle = self.put(state, number, Worker())
        event = "step_noop" if verdict.what == "ack" else "message_settled"
        return Move(
            number, event, f"{said}: {verdict.what}, {verdict.reason}", settled(idle, index, verdict.what)
        )

    def _claim(self, state: State, number: int, worker: Worker, said: str) -> Move:
        state = forget(state, number)
        return Move(
            number,
            "message_received" if worker.message >= 0 else "lease_found",
            said,
            self._plan(state, number, worker._replace(phase=CLAIM), fresh=False),
        )

    # The work on a step.

    def _works(self, state: State, number: int) -> Iterator[Move]:
        worker = state.workers[number]
        if not self.core.trusts(worker.lease, worker.trust):
            cleared = self._clear(state, number, worker)
            yield Move(number, "lease_lost", "it ended before it was renewed", cleared)
            return
        yield from _WORK[worker.phase](self, state, number, worker)
        released = worker._replace(phase=RELEASE, why="shutdown", form=0, beat=-1)
        yield Move(number, "drain_started", "", self._plan(state, number, released), is_fault=True)

    def _clear(self, state: State, number: int, worker: Worker) -> State:
        return self._plan(
            state, number, worker._replace(phase=CLEAR, form=0, unknown=False, beat=-1, paid=False)
        )

    def _prepares(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        lease = contents.LEASES.values[worker.lease]
        has_chart = lease.may_have_charts and bool(
            state.charts[worker.step] >> contents.epoch_of(worker.lease) & 1
        )
        if has_chart:
            reused = worker._replace(phase=MANIFEST, has_chart=True)
            yield Move(number, "chart_reused", "", self.put(state, number, reused))
        else:
            counting = worker._replace(phase=COUNT, guard=CURRENT)
            read = self.put(state, number, counting)
            yield Move(number, "reads the usage", f"{max(state.used, 0)} calls", read)

    def _counts(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        if worker.guard == STALE:
            again = self.put(state, number, worker._replace(guard=CURRENT))
            yield Move(number, "reads the usage", f"lost the race: {max(state.used, 0)} calls", again)
            return
        is_granted, used = self.core.taken(state.used)
        if not is_granted:
            ended = worker._replace(phase=MANIFEST, result="CHART_API_LIMIT_EXCEEDED", guard=STALE)
            yield Move(number, "chart_api_limit_exceeded", "", self.put(state, number, ended))
            return
        counted = self._usage_written(state._replace(used=used))
        paying = self.put(counted, number, worker._replace(phase=PAY, guard=STALE))
        yield Move(number, "counts a call", f"{used} of {contents.LIMIT}", paying)
        unsure = self.put(counted, number, worker._replace(guard=CURRENT))
        yield Move(number, "no answer", f"the count took effect: {used}", unsure, is_fault=True)

    def _usage_written(self, state: State) -> State:
        workers = (w._replace(guard=STALE) if w.phase == COUNT else w for w in state.workers)
        return state._replace(workers=tuple(workers))

    def _pays(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        if worker.seen:
            raise Violation("{} pays for a chart that was stored before its claim", number)
        history = state.histories[worker.step]
        if not worker.ghost:
            history = history._replace(paid=history.paid + 1)
        paid = state._replace(calls=state.calls + 1, histories=at(state.histories, worker.step, history))
        uploading = self.put(paid, number, worker._replace(phase=UPLOAD, paid=True))
        yield Move(number, "chart_api_call_finished", "", uploading)
        failed = self.put(paid, number, worker._replace(phase=MANIFEST, result="CHART_API_FAILED"))
        yield Move(number, "chart_failed", "", failed, is_fault=True)

    def _uploads(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        stored = state.charts[worker.step] | 1 << contents.epoch_of(worker.lease)
        state_after = state._replace(charts=at(state.charts, worker.step, stored))
        done = worker._replace(phase=MANIFEST, paid=False, has_chart=True)
        yield Move(number, "chart_stored", "", self.put(state_after, number, done))
        released = worker._replace(phase=RELEASE, why="outage", form=0, beat=-1, paid=False)
        yield Move(
            number, "backend_unavailable", "storage", self._plan(state, number, released), is_fault=True
        )

    def _writes_manifest(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        writer = state.manifests[worker.step]
        if writer == NOBODY:
            yield Move(number, "manifest_written", "", self._manifest_written(state, number, worker))
            return
        lease = state.leases[worker.step]
        if lease is None or lease.owner != number:
            yield Move(number, "lease_lost", "another worker has it", self._clear(state, number, worker))
            return
        replacing = worker._replace(phase=REPLACE, guard=CURRENT)
        yield Move(number, "confirms its lease", "there is a manifest", self.put(state, number, replacing))

    def _replaces_manifest(self, state: State, number: int, worker: Worker) -> Iterator[Move]:
        if worker.guard == STALE:
            again = self.put(state, number, worker._replace(phase=MANIFEST))
            yield Move(number, "reads the manifest", "another worker has replaced it", again)
        else:
            yield Move(number, "manifest_written", "", self._manifest_written(state, number, worker))

    def _manifest_written(self, state: State, number: int, worker: Worker) -> State:
        workers = (
            w._replace(guard=STALE) if w.phase == REPLACE and w.step == worker.step else w
            for w in state.workers
        )
        written = state._replace(workers=tuple(workers), manifests=at(state.manifests, worker.step, number))
        return self._plan(written, number, worker._replace(phase=END, guard=STALE, form=0, beat=-1))

    # Heartbeats.

    def _beats(self, state: State, number: int) -> Iterator[Move]:
        worker = state.workers[number]
        stored = state.leases[worker.step]
        run, seen = contents.run_seen_by(state, number), contents.seen_by(stored, number)
        if worker.beat < 0:
            why = self.core.why_beat_lost(run, worker.step, worker.lease, seen)
            if why is not None:
                yield Move(number, "lease_lost", why, self._clear(state, number, worker))
            elif worker.revoked:
                raise Violation("{} renews a lease that was taken away from it", number)
            elif worker.trust < contents.TERMS.trusted_seconds or worker.beat_failed:
                beating = worker._replace(beat=CURRENT, beat_age=0)
                yield Move(number, "heartbeat", "reads the lease", self.put(state, number, beating))
            return
        if worker.beat == STALE or stored is None:
            yield Move(number, "lease_lost", "it has just changed", self._clear(state, number, worker))
            return
        content = contents.renewed(stored.content, worker.beat_age)
        landed = lease_changed(state, worker.step, stored._replace(content=content))
        trust = round(contents.TERMS.trusted_seconds) - 60 * worker.beat_age
        quiet = worker._replace(beat=-1, beat_age=0)
        renewed = quiet._replace(trust=trust, beat_failed=False)
        yield Move(number, "heartbeat", "renewed the lease", self.put(landed, number, renewed))
        if not state.faults:
            return
        failed = quiet._replace(beat_failed=True)
        yield Move(
            number, "heartbeat", "no answer, but renewed", self.put(landed, number, failed), is_fault=True
        )
        yield Move(number, "heartbeat", "no answer", self.put(state, number, failed), is_fault=True)


_WORK = {
    PREPARE: WorkerMoves._prepares,
    COUNT: WorkerMoves._counts,
    PAY: WorkerMoves._pays,
    UPLOAD: WorkerMoves._uploads,
    MANIFEST: WorkerMoves._writes_manifest,
    REPLACE: WorkerMoves._replaces_manifest,
}
