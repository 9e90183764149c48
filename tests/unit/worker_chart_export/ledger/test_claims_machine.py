"""A state machine of workers, an orchestrator, lost responses and pauses: one winner per step."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.ledger.memory_firestore import FINAL, MemoryFirestore, PreconditionFailed
from tests.support.ledger.samples import TERMS, seconds
from tests.support.ledger.stepwise_worker import Beat, Flight, StepwiseWorker
from worker_chart_export.errors import LeaseLost

STEPS = ("a", "b")
SKEWS = (0.0, -40.0, 300.0)
any_worker = st.integers(0, len(SKEWS) - 1)
# Mostly the same step, so that workers conflict.
any_step = st.sampled_from(["a", "a", "a", "b"])
any_number = st.integers(0, 11)
any_read = st.none() | any_number
any_end = st.sampled_from(["succeed", "succeed", "fail", "release", "outage"])
any_fate = st.sampled_from(["answered", "answered", "unanswered", "late", "planned", "waits for others"])


class ClaimsMachine(RuleBasedStateMachine):
    """All actions of the processes in any order. The store checks each commit."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryFirestore(STEPS)
        self.workers = [StepwiseWorker(self.store, skew_seconds=skew) for skew in SKEWS]
        self.flights: list[Flight] = []
        #: Commits whose sender no longer waits. They may still be applied, or never.
        self.ghosts: list[Flight] = []
        self.beats: list[tuple[StepwiseWorker, Beat]] = []
        self.touched = 0

    @rule(passed=st.sampled_from([0.5, 4.0, 40.0, 114.0, 121.0, 126.0, 4000.0]))
    def time_passes(self, passed):
        """Advance the server and all clocks. A worker without an action is frozen."""
        self.store.now += seconds(passed)

    @rule(worker=any_worker)
    def a_worker_reads(self, worker):
        """A worker reads the run and keeps the result for later."""
        self.workers[worker].read()

    @rule(worker=any_worker, step_id=any_step, kept=any_read, fate=any_fate)
    def a_worker_wants_a_step(self, worker, step_id, kept, fate):
        """A worker claims a step, by an old read of its own or without one."""
        one = self.workers[worker]
        one.want_claim(step_id, one.kept(kept))
        self._go_on(one, kept, fate)

    @precondition(lambda self: self._held())
    @rule(which=any_number, how=any_end, kept=any_read, fate=any_fate)
    def a_worker_ends_a_step(self, which, how, kept, fate):
        """A worker ends a step that it believes it holds."""
        worker, held = self._one_held(which)
        worker.want_end(held.step_id, how)
        self._go_on(worker, kept, fate)

    @precondition(lambda self: self._waiting())
    @rule(which=any_number, kept=any_read, fate=any_fate)
    def a_worker_tries_again(self, which, kept, fate):
        """A worker tries all its waiting requests again in one commit."""
        self._go_on(self._waiting()[which % len(self._waiting())], kept, fate)

    def _go_on(self, worker, kept, fate):
        """Plan from a new read, or from an old one if it is enough, and send the commit now or later."""
        if fate == "waits for others":
            return
        flight = worker.plan(worker.kept(kept))
        if flight is not None and fate == "planned":
            self.flights.append(flight)
        elif flight is not None:
            self._arrive(flight, fate)

    @precondition(lambda self: self.flights)
    @rule(which=any_number, fate=any_fate)
    def a_commit_is_sent(self, which, fate):
        """A planned commit is sent, possibly long after it was planned."""
        self._arrive(self.flights.pop(which % len(self.flights)), fate)

    def _arrive(self, flight, fate):
        """The commit and its response arrive or not, or the commit arrives after its sender's timeout."""
        if fate == "late":
            self.ghosts.append(flight)
        landed = None if fate == "late" else self._land(flight)
        if fate in ("late", "unanswered"):
            flight.worker.hear(flight, None, is_unknown=True)
        else:
            flight.worker.hear(flight, landed)

    def _held(self):
        return [(worker, held) for worker in self.workers for held in worker.held.values()]

    def _one_held(self, which):
        return self._held()[which % len(self._held())]

    def _waiting(self):
        return [worker for worker in self.workers if worker.waiting]

    @precondition(lambda self: self.ghosts)
    @rule(which=any_number)
    def a_late_commit_arrives(self, which):
        """A late commit arrives without a receiver of its response."""
        self._land(self.ghosts.pop(which % len(self.ghosts)))

    def _land(self, flight):
        try:
            return self.store.commit(flight.commit)
        except PreconditionFailed:
            return None

    @precondition(lambda self: self._held())
    @rule(
        which=any_number,
        other=any_worker,
        passed=st.sampled_from([12.0, 126.0, 126.0]),
        how=st.none() | any_end,
        was_planned=st.booleans(),
    )
    def a_worker_is_frozen(self, which, other, passed, how, was_planned):
        """While a worker is frozen another one takes over; then the first one continues."""
        frozen, held = self._one_held(which)
        if how and was_planned:
            frozen.want_end(held.step_id, how)
            self._go_on(frozen, -1, "planned")
        self.store.now += seconds(passed)
        self.workers[other].want_claim(held.step_id)
        self._go_on(self.workers[other], None, "answered")
        if how and was_planned and self.flights:
            self._arrive(self.flights.pop(), "answered")
        elif how and frozen.held.get(held.step_id) is held:
            frozen.want_end(held.step_id, how)
            self._go_on(frozen, -1, "answered")

    @precondition(lambda self: self._held())
    @rule(which=any_number, first=any_worker, fate=any_fate)
    def two_rescuers_come_at_once(self, which, first, fate):
        """Two rescuers have both read before the first of them writes."""
        _, held = self._one_held(which)
        self.store.now += seconds(126)
        for worker in (self.workers[first], self.workers[first - 1]):
            worker.want_claim(held.step_id)
            self._go_on(worker, None, "planned")
        for flight in self.flights[-2:]:
            self._arrive(flight, fate)
        self.flights = self.flights[:-2]

    @rule(worker=any_worker)
    def a_worker_crashes(self, worker):
        """A worker crashes and loses its memory; another one starts. Its commits can still arrive."""
        self.ghosts += [flight for flight in self.flights if flight.worker is self.workers[worker]]
        self.flights = [flight for flight in self.flights if flight.worker is not self.workers[worker]]
        self.workers[worker] = StepwiseWorker(self.store, skew_seconds=SKEWS[worker])

    @precondition(lambda self: self._waiting())
    @rule(which=any_number)
    def a_caller_gives_up(self, which):
        """A caller leaves: its request is not repeated, and a claim that it won unknowingly expires."""
        self._waiting()[which % len(self._waiting())].waiting.pop(0)

    @precondition(lambda self: self._held())
    @rule(which=any_number)
    def a_heart_beat_reads(self, which):
        """A heartbeat reads the leases."""
        worker, held = self._one_held(which)
        beat = worker.begin_beat(held.step_id)
        self.beats += [(worker, beat)] if beat else []

    @precondition(lambda self: self.beats)
    @rule(which=any_number, is_heard=st.booleans())
    def a_heart_beat_writes(self, which, is_heard):
        """A heartbeat writes the leases; its response can be lost."""
        worker, beat = self.beats.pop(which % len(self.beats))
        lease = replace(beat.found.lease, expires_at=beat.read_time + seconds(TERMS.lease_seconds))
        try:
            renewed = self.store.renew(beat.held.step_id, lease, beat.found.update_time)
        except PreconditionFailed:
            renewed = None
        if is_heard:
            worker.hear_beat(beat, renewed)

    @rule(step_id=any_step, status=st.sampled_from(["READY", "READY", "CANCELLED", None, None, None]))
    def the_run_is_written(self, step_id, status):
        """The orchestrator cancels a step, makes it READY again, or writes another field."""
        if status == "READY" and self.store.status(step_id) != "READY":
            self.store.judge.reset(step_id)
        self.touched += 1
        status = status or self.store.status(step_id)
        self.store.change_run({f"steps.{step_id}.status": status, "steps.b.touched": self.touched})

    @precondition(lambda self: self._held())
    @rule(which=any_number)
    def a_worker_pays(self, which):
        """A worker pays only while it holds the step."""
        _, held = self._one_held(which)
        with suppress(LeaseLost):
            held.check()
            current = self.store.leases.get(held.step_id)
            was_taken = current is not None and current.lease.token not in (held.lease.token, "")
            assert not was_taken or current.lease.attempt == 1, "READY again is the one way to lose it early"

    @invariant()
    def a_running_step_has_a_lease(self):
        """Every RUNNING step has a lease, so that it can be rescued."""
        running = {name for name in STEPS if self.store.status(name) == "RUNNING"}
        assert running <= set(self.store.leases)

    def teardown(self):
        """At the end each RUNNING step is rescued or failed."""
        for flight in [*self.ghosts, *self.flights]:
            self._land(flight)
        for step_id in STEPS:
            self._rescue(step_id)

    def _rescue(self, step_id):
        if self.store.status(step_id) != "RUNNING":
            return
        self.store.now += seconds(4000)
        rescuer = StepwiseWorker(self.store)
        rescuer.want_claim(step_id)
        self._go_on(rescuer, None, "answered")
        if step_id in rescuer.held:
            rescuer.want_end(step_id, "succeed")
            self._go_on(rescuer, None, "answered")
        assert self.store.status(step_id) in FINAL


TestClaims = ClaimsMachine.TestCase
TestClaims.settings = settings(max_examples=250, stateful_step_count=50, deadline=None, derandomize=True)
