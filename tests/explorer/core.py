"""The real core, asked in the words of the model. Nothing is decided here.

Each question builds what the core reads (a run, a lease, a message), calls the core, and translates its
answer. Answers are remembered, because millions of states ask few different questions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from daemon.handling.disposition import after_work, without_work
from daemon.handling.step_state import (
    RescueAction,
    StepState,
    classify_lease,
    classify_step,
    rescue_action,
)
from tests.explorer.contents import (
    CLOCK,
    ERROR,
    GRACE_SECONDS,
    LEASES,
    LIMIT,
    MANIFEST,
    MINE,
    NOW,
    OPERATOR,
    OUTAGE,
    TERMS,
    TICK,
    lease_of,
    run_from,
    snapshot_of,
    start_of,
)
from tests.explorer.state import CLAIM, CLEAR, END, Plan
from tests.explorer.translation import translated
from worker_chart_export.charts.chart_img.usage_document import take
from worker_chart_export.errors import LeaseLost, WorkerError
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.ledger.commit.plan import CommitRequest, Resolution, plan_commit
from worker_chart_export.ledger.heartbeats import Heartbeats, why_lost
from worker_chart_export.ledger.intents import ClaimIntent, FailureForm, FinalizeIntent, ReleaseIntent
from worker_chart_export.ledger.lease import HeldLease, LeaseOffer
from worker_chart_export.ledger.operator_intents import OperatorReleaseIntent, RetryIntent
from worker_chart_export.ledger.run_snapshot import RunSnapshot
from worker_chart_export.ledger.step_ledger import StepLedger

if TYPE_CHECKING:
    from tests.explorer.state import Worker
    from worker_chart_export.ledger.intents import Intent


class Answer(NamedTuple):
    """What a commit request came to: a commit to send, or a result, or an error."""

    plan: Plan | None = None
    result: Any = None
    error: WorkerError | None = None


class Verdict(NamedTuple):
    """What a worker does with a message or an expired lease: a word, and the reason for the log."""

    what: str
    reason: str


class Core:
    """The rules, as the workers use them. Tests replace single intents by broken ones."""

    claim: type[ClaimIntent] = ClaimIntent
    finalize: type[FinalizeIntent] = FinalizeIntent
    release: type[ReleaseIntent] = ReleaseIntent
    offer: type[LeaseOffer] = LeaseOffer
    #: A broken core may take an unknown outcome for a lost race, or trust an old lease.
    verifies = True
    fences_itself = True

    def __init__(self) -> None:
        heartbeats = Heartbeats(client=None, terms=TERMS, clock=CLOCK)
        self._ledger = StepLedger(client=None, clock=CLOCK, terms=TERMS, heartbeats=heartbeats)
        self._memory: dict[Any, Any] = {}

    def remembered(self, key: tuple[Any, ...], ask: Any) -> Any:
        """Return the answer to a question, which is asked once."""
        if key not in self._memory:
            self._memory[key] = ask()
        return self._memory[key]

    # Messages and expired leases.

    def on_message(
        self,
        run: tuple[Any, ...],
        step: int,
        lease: tuple[int, str] | None,
        message: int,
        age: int,
        *,
        lost: bool,
    ) -> Verdict:
        """Decide what to do with a message: see `MessageHandler._work_on_step`."""
        key = ("message", run, step, lease, message, age, lost)
        return self.remembered(key, lambda: self._on_message(run, step, lease, message, age, lost=lost))

    def _on_message(self, run: Any, step: int, lease: Any, message: int, age: int, *, lost: bool) -> Verdict:
        view = classify_step(run_from(run), f"s{step}")
        if view.state is StepState.RUNNING:
            stored = None if lease is None else lease_of(*lease)
            view = classify_lease(stored, now=NOW, message_id=f"m{message}", terms=TERMS)
        if lost and view.state is StepState.MISSING:
            return Verdict("ack", view.state.value)
        if view.state in (StepState.READY, StepState.LEASE_EXPIRED):
            return Verdict("claim", view.state.value)
        if view.state is StepState.UNLEASED:
            return Verdict("adopt", view.state.value)
        done = without_work(view, age_seconds=age * 60.0, grace_seconds=GRACE_SECONDS)
        return Verdict(type(done).__name__.lower(), done.reason)

    def on_expired(self, run: tuple[Any, ...], step: int, lease: tuple[int, str]) -> RescueAction:
        """Decide what the rescue does with a lease that its query has found."""
        key = ("expired", run, step, lease)
        return self.remembered(
            key, lambda: rescue_action(snapshot_of(run, step, lease), f"s{step}", terms=TERMS)
        )

    def is_found(self, content: int) -> bool:
        """Whether the rescue's query finds this lease."""
        return bool(LEASES.values[content].expires_at < NOW)

    def shorter(self, form: int) -> int | None:
        """Return the next form of a commit that Firestore can't store; None: there is none."""
        intent = self.finalize(step_id="s0", finished_at=MINE, form=FailureForm(form)).shortened()
        return None if intent is None else int(intent.form)

    def done_after(self, *, lost: bool, reason: str | None) -> str | None:
        """Return what becomes of a message after the work on its step; None: read the run again."""
        kind = OutcomeKind.FINALIZE_REFUSED if lost else OutcomeKind.SUCCEEDED
        done = after_work(Outcome(kind=kind, reason=reason))
        return None if done is None else done.reason

    # Intents.

    def _claim_intent(self, step: int, message: int, form: int) -> ClaimIntent:
        offer = self.offer(
            owner="host:1:mine",
            token=MINE,
            message_id="" if message < 0 else f"m{message}",
            finished_at=MINE,
            terms=TERMS,
        )
        return self.claim(step_id=f"s{step}", offer=offer, form=FailureForm(form))

    def _finalize_intent(self, step: int, result: str, form: int) -> FinalizeIntent:
        return self.finalize(
            step_id=f"s{step}",
            finished_at=MINE,
            manifest_uri=None if result else MANIFEST,
            error=replace(ERROR, code=result) if result else None,
            token=MINE,
            form=FailureForm(form),
        )

    def _release_intent(self, step: int, why: str, form: int) -> ReleaseIntent:
        return self.release(
            step_id=f"s{step}",
            token=MINE,
            delay_seconds=5.0 if why == "outage" else 0.0,
            error=OUTAGE if why == "outage" else None,
            finished_at=MINE,
            is_lost=why == "lost",
            form=FailureForm(form),
        )

    def intent_of(self, worker: Worker) -> Intent:
        """Return what a worker in one of the phases of a commit wants."""
        if worker.phase == CLAIM:
            return self._claim_intent(worker.step, worker.message, worker.form)
        if worker.phase == END:
            return self._finalize_intent(worker.step, worker.result, worker.form)
        return self._release_intent(worker.step, "lost" if worker.phase == CLEAR else worker.why, worker.form)

    # Commits.

    def plan_claim(
        self, run: Any, step: int, lease: Any, message: int, form: int, *, unknown: bool, fresh: bool
    ) -> Answer:
        """Plan a claim, first from the handler's own read, as the group commit does."""
        key = ("claim", run, step, lease, message, form, unknown and self.verifies, fresh)
        return self.remembered(
            key,
            lambda: self._plan_claim(
                run, step, lease, message, form, unknown=unknown and self.verifies, fresh=fresh
            ),
        )

    def _plan_claim(
        self, run: Any, step: int, lease: Any, message: int, form: int, *, unknown: bool, fresh: bool
    ) -> Answer:
        intent = self._claim_intent(step, message, form)
        status = run[1][step][0] if run[0] else ""
        own = None if fresh else snapshot_of(run, step, lease, with_leases=status == "RUNNING")
        return self._plan(intent, run, step, lease, own=own, unknown=unknown)

    def plan_finalize(
        self, run: Any, step: int, lease: Any, result: str, form: int, *, unknown: bool
    ) -> Answer:
        """Plan the finalize of a step; `result` is empty for a success."""
        key = ("finalize", run, step, lease, result, form, unknown and self.verifies)
        return self.remembered(
            key,
            lambda: self._plan_finalize(run, step, lease, result, form, unknown=unknown and self.verifies),
        )

    def _plan_finalize(
        self, run: Any, step: int, lease: Any, result: str, form: int, *, unknown: bool
    ) -> Answer:
        return self._plan(self._finalize_intent(step, result, form), run, step, lease, unknown=unknown)

    def plan_release(self, run: Any, step: int, lease: Any, why: str, form: int, *, unknown: bool) -> Answer:
        """Plan a release: at `shutdown`, in an `outage`, or after a `lost` lease."""
        key = ("release", run, step, lease, why, form, unknown and self.verifies)
        return self.remembered(
            key, lambda: self._plan_release(run, step, lease, why, form, unknown=unknown and self.verifies)
        )

    def _plan_release(self, run: Any, step: int, lease: Any, why: str, form: int, *, unknown: bool) -> Answer:
        return self._plan(self._release_intent(step, why, form), run, step, lease, unknown=unknown)

    def plan_for_operator(self, what: str, run: Any, step: int, lease: Any, epoch: int = 0) -> Answer:
        """Plan what an operator does: `retry` or `release`."""
        key = ("operator", what, run, step, lease, epoch)
        return self.remembered(key, lambda: self._plan_for_operator(what, run, step, lease, epoch))

    def _plan_for_operator(self, what: str, run: Any, step: int, lease: Any, epoch: int) -> Answer:
        intent: Intent = OperatorReleaseIntent(step_id=f"s{step}", operator=OPERATOR)
        if what == "retry":
            failure = (run[1][step][1] or None) if run[0] else None
            intent = RetryIntent(
                step_id=f"s{step}",
                operator=OPERATOR,
                failure=failure,
                charts_of=start_of(epoch),
                reopens_run=True,
            )
        return self._plan(intent, run, step, lease)

    def _plan(
        self,
        intent: Intent,
        run: Any,
        step: int,
        lease: Any,
        *,
        own: RunSnapshot | None = None,
        unknown: bool = False,
    ) -> Answer:
        """Call the commit plan for one request: from the caller's read, or from a new one if it needs one."""
        request = CommitRequest(intent=intent, snapshot=own, held=None, outcome_unknown=unknown)
        plan = None if own is None or not run[0] else plan_commit([request], own, is_fresh=False)
        snapshot = own
        if plan is None or plan.needs_read:
            snapshot = snapshot_of(run, step, lease)
            plan = plan_commit([request], snapshot, is_fresh=True)
        if request in plan.failed:
            return Answer(error=plan.failed[request])
        if request in plan.resolved:
            resolution: Resolution = plan.resolved[request]
            return Answer(result=resolution.result)
        return Answer(plan=translated(plan.writing[request], run, step))

    # Leases.

    def trust_seconds(self, content: int, age: int) -> int:
        """Return how long a worker trusts a lease that it wrote after a read `age` ticks ago."""
        return self.remembered(("trust", content, age), lambda: self._trust_seconds(content, age))

    def _trust_seconds(self, content: int, age: int) -> int:
        passed = age * TICK
        snapshot = RunSnapshot(
            run=None,
            update_time=None,
            read_time=NOW - passed,
            asked_at=CLOCK.monotonic() - passed.total_seconds(),
            leases={},
        )
        resolution = Resolution(result=None, lease=lease_of(content, MINE), snapshot=snapshot)
        held = self._ledger._hold("r", "s", resolution)
        return round(held.trusted_until - CLOCK.monotonic())

    def trusts(self, content: int, trust: int) -> bool:
        """Whether a worker that still trusts its lease for so long may pay and write."""
        return not self.fences_itself or self.remembered(
            ("trusts", trust > 0), lambda: self._trusts(content, trust)
        )

    def _trusts(self, content: int, trust: int) -> bool:
        held = HeldLease(
            run_id="r",
            step_id="s",
            stored=lease_of(content, MINE),
            trusted_until=CLOCK.monotonic() + trust,
            clock=CLOCK,
        )
        try:
            held.check()
        except LeaseLost:
            return False
        return True

    def why_beat_lost(self, run: Any, step: int, own: int, lease: Any) -> str | None:
        """Return why a heartbeat finds the lease lost."""
        key = ("beat", run, step, own, lease)

        def ask() -> str | None:
            found, stored = run_from(run), None if lease is None else lease_of(*lease)
            return why_lost(f"s{step}", lease_of(own, MINE).lease, stored, found.document if found else None)

        return self.remembered(key, ask)

    def taken(self, used: int) -> tuple[bool, int]:
        """Count one call: whether it is granted, and the new count."""

        def ask() -> tuple[bool, int]:
            document = {"windowStart": "2025-12-15T00:00:00Z", "usageToday": used} if used >= 0 else None
            taken = take(document, wanted=1, daily_limit=LIMIT, now=NOW)
            return taken.granted == 1, taken.used

        return self.remembered(("take", used), ask)
