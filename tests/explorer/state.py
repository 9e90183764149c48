"""The states of the model: what the store holds, what each worker remembers, and how far time has gone.

All values are immutable and small, so that millions of states can be hashed. Times count from now: a tick
moves the content of the leases back, and not a clock ahead. So two states that differ only in the time of day
are one state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Who a token, a mark or a manifest belongs to, where it is no worker's (workers have numbers from 0).
DEAD, EMPTY, UNKNOWN, NOBODY = -1, -2, -3, -4

# The phases of a worker's thread.
IDLE, GOT, CLAIM, PREPARE, COUNT, PAY, UPLOAD, MANIFEST, REPLACE, END, RELEASE, CLEAR, ADOPT = range(13)
#: It holds a lease and may pay or write.
WORKING = frozenset({PREPARE, COUNT, PAY, UPLOAD, MANIFEST, REPLACE})
#: A call is under way or about to be sent. It ends long before a tick, unless the process is frozen.
IN_CALL = frozenset({GOT, CLAIM, REPLACE, END, RELEASE, CLEAR, ADOPT})

# The guard of a write: still true, or not any more; or the write has none.
STALE, CURRENT, ABSENT_GUARD, NO_GUARD = range(4)
# What a commit does to a lease.
KEEP, WRITE, DELETE = range(3)


class Step(NamedTuple):
    """A step in the run document. `mark` is whose `finishedAt` it has."""

    status: str
    mark: int = NOBODY


class LeaseDoc(NamedTuple):
    """A lease document: the number of its content (see `core`), and whose token it has."""

    content: int
    owner: int


class Plan(NamedTuple):
    """A commit that a worker has decided on and not yet sent.

    Attributes:
        step: The step.
        status: The new status of the step; empty: the run is not written.
        marks: Whether the patch writes the worker's `finishedAt`.
        size: How much the patch lets the run document grow, from 0 to 3.
        run_guard: Whether the run is as it was read.
        lease_op: What is done to the lease.
        lease: The content of the written lease.
        has_token: Whether the written lease has the worker's token.
        lease_guard: Whether the lease is as it was read.
        result: The number of the result (see `core`) when the commit takes effect.
        age: Ticks since the read.
    """

    step: int
    status: str
    marks: bool
    size: int
    run_guard: int
    lease_op: int
    lease: int
    has_token: bool
    lease_guard: int
    result: int
    age: int


def lease_only(step: int, lease_op: int, lease: int, guard: int) -> Plan:
    """Return a commit that creates or deletes a lease, and nothing else."""
    return Plan(
        step=step,
        status="",
        marks=False,
        size=0,
        run_guard=NO_GUARD,
        lease_op=lease_op,
        lease=lease,
        has_token=False,
        lease_guard=guard,
        result=-1,
        age=0,
    )


class Flight(NamedTuple):
    """A commit that was sent and got no answer. It may take effect later, as long as its guards hold.

    Attributes:
        parts: Who wants what of it: one worker, or two threads of one process that share it.
    """

    parts: tuple[tuple[int, Plan], ...]

    def of(self, new: Mapping[int, int]) -> Flight:
        """Return it with other numbers of workers."""
        return Flight(tuple((new.get(owner, owner), plan) for owner, plan in self.parts))


class Worker(NamedTuple):
    """What one worker knows and does. `revoked`, `seen` and `paid_for` serve the invariants alone.

    Attributes:
        phase: What it does.
        step: The step it works on.
        message: The message that it handles; -1: none, a rescue.
        plan: The commit that it is about to send.
        unknown: An earlier commit for the same intent got no answer.
        form: The form of the intent (`FailureForm`).
        lease: The content of its lease as it holds it; -1: none.
        trust: Seconds for which it still trusts its lease.
        has_chart: It made the chart, or found it.
        paid: It has paid for the chart and not stored it.
        result: How its work ended: empty, or the name of a failure.
        why: Why it releases: shutdown or outage.
        beat: A heartbeat has read the lease, and this is the guard of its write; -1: none.
        beat_age: Ticks since that read.
        beat_failed: Its last heartbeat got no answer.
        guard: The guard of a count or of a manifest that it is about to write.
        lost: It lost this message's step before.
        frozen: The process stands still.
        revoked: A person or the orchestrator took the step away from it.
        seen: The chart was stored before it claimed the step.
        ghost: Its claim belongs to an earlier life of the step (before a reset or a retry).
    """

    phase: int = IDLE
    step: int = 0
    message: int = -1
    plan: Plan | None = None
    unknown: bool = False
    form: int = 0
    lease: int = -1
    trust: int = 0
    has_chart: bool = False
    paid: bool = False
    result: str = ""
    why: str = ""
    beat: int = -1
    beat_age: int = 0
    beat_failed: bool = False
    guard: int = STALE
    lost: bool = False
    frozen: bool = False
    revoked: bool = False
    seen: bool = False
    ghost: bool = False


class Message(NamedTuple):
    """A message that names a step. `age` is in ticks since it was published, at most 3."""

    step: int
    queued: bool = True
    deferred: bool = False
    settled: bool = False
    age: int = 0


class History(NamedTuple):
    """What has happened to a step since it became READY: counts for the invariants."""

    claims: int = 0
    unreleased: int = 0
    paid: int = 0
    epoch: int = 0


class State(NamedTuple):
    """All there is at one moment.

    Attributes:
        run: The status of the run; empty: it is deleted.
        full: 0: the run document has room; 1, 2, 3: for less and less.
        steps: The steps.
        leases: Their leases.
        charts: For each step the set of starts (as bits) under which its chart is stored.
        manifests: Who wrote the manifest of each step.
        used: The calls counted in the usage document.
        calls: The calls that were made.
        messages: The messages.
        workers: The workers.
        flights: Commits without an answer that may still take effect.
        faults: How many more faults may happen.
        paused: An operator has paused the fleet.
        histories: For each step, see `History`.
    """

    run: str
    full: int
    steps: tuple[Step, ...]
    leases: tuple[LeaseDoc | None, ...]
    charts: tuple[int, ...]
    manifests: tuple[int, ...]
    used: int
    calls: int
    messages: tuple[Message, ...]
    workers: tuple[Worker, ...]
    flights: tuple[Flight, ...]
    faults: int
    paused: bool
    histories: tuple[History, ...]


def at(items: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    """Return the tuple with another item in this place."""
    return (*items[:index], value, *items[index + 1 :])


def canonical(state: State, numbers: range) -> tuple[State, tuple[int, ...]]:
    """Return one state for all that differ only in the numbers of the workers, and the old number of each.

    Args:
        state: A state.
        numbers: The workers that are alike. A worker whose clock is wrong is none of them.
    """
    if len(numbers) < 2:
        return state, tuple(range(len(state.workers)))

    def key(number: int) -> tuple:  # type: ignore[type-arg]
        return (
            _sortable(state.workers[number]),
            tuple(lease is not None and lease.owner == number for lease in state.leases),
            tuple(step.mark == number for step in state.steps),
            tuple(writer == number for writer in state.manifests),
            tuple(owner == number for flight in state.flights for owner, _ in flight.parts),
        )

    order = sorted(numbers, key=key) + [n for n in range(len(state.workers)) if n not in numbers]
    if order == list(range(len(order))):
        return state, tuple(order)
    new = {old: number for number, old in enumerate(order)}
    return (
        state._replace(
            steps=tuple(step._replace(mark=new.get(step.mark, step.mark)) for step in state.steps),
            leases=tuple(
                lease and lease._replace(owner=new.get(lease.owner, lease.owner)) for lease in state.leases
            ),
            manifests=tuple(new.get(writer, writer) for writer in state.manifests),
            flights=tuple(flight.of(new) for flight in state.flights),
            workers=tuple(state.workers[old] for old in order),
        ),
        tuple(order),
    )


def _sortable(worker: Worker) -> tuple:  # type: ignore[type-arg]
    return (*worker[:3], worker.plan or (), *worker[4:])
