"""From a delivery to its disposition: the action for each state of a step."""

from __future__ import annotations

from datetime import timedelta

import pytest

from daemon.handling.disposition import Ack, Defer, Nack, Reject
from daemon.handling.handler import CONTENDED, MAX_LOST_STEPS, OUT_OF_TIME
from daemon.lifecycle.drain import Drain
from tests.support.fakes import OHLCV_ID, STEP_ID, HandClock, chart_step, lease_of, run_of
from tests.support.handler_fakes import RUN_ONLY, Ledger, Pipeline, free_steps, handler, message, one_step
from worker_chart_export.errors import AccountsExhausted, RunInvalid
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.ledger.decisions import Reason

FINAL = ["SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"]
OVER = lease_of(left_seconds=-6)
LOST = [
    Outcome(kind=OutcomeKind.CLAIM_LOST, reason="step_running"),
    Outcome(kind=OutcomeKind.FINALIZE_REFUSED, reason=Reason.FENCED),
    Outcome(kind=OutcomeKind.FINALIZE_REFUSED, reason=Reason.LEASE_LOST),
]


class TestNamedStep:
    """A message that names its step."""

    @pytest.mark.parametrize("kind", [OutcomeKind.SUCCEEDED, OutcomeKind.FAILED])
    def test_a_ready_step_is_worked_and_acked(self, kind):
        """A READY step is worked and acked, also when it failed."""
        pipeline = Pipeline(kind)
        assert handler(Ledger(one_step()), pipeline).handle(message()) == Ack(reason=kind.value)
        assert (pipeline.worked, pipeline.under) == ([STEP_ID], ["m1"])

    def test_a_ready_step_is_read_once_and_its_claim_gets_that_read(self):
        """A READY step is read once, and its claim gets that read."""
        ledger, pipeline = Ledger(one_step()), Pipeline()
        handler(ledger, pipeline).handle(message())
        (snapshot,) = pipeline.snapshots
        assert (ledger.reads, snapshot.run) == (1, one_step())

    @pytest.mark.parametrize("status", FINAL)
    def test_a_step_that_is_done_is_acked(self, status, log_lines):
        """The message of a finished step is acked without work."""
        pipeline = Pipeline()
        done = handler(Ledger(one_step(status=status)), pipeline).handle(message())
        assert (done, pipeline.worked) == (Ack(reason="final"), [])
        assert (log_lines()[-1]["event"], log_lines()[-1]["reason"]) == ("step_noop", "final")

    def test_a_step_that_another_message_s_worker_runs_is_acked_as_a_duplicate(self, log_lines):
        """When another message's worker runs the step, the message is acked as a duplicate."""
        ledger, pipeline = Ledger(one_step(status="RUNNING"), **{STEP_ID: lease_of()}), Pipeline()
        assert handler(ledger, pipeline).handle(message()) == Ack(reason="duplicate")
        assert pipeline.worked == []
        assert (log_lines()[-1]["event"], log_lines()[-1]["reason"]) == ("step_noop", "duplicate")

    def test_an_own_redelivery_is_deferred_by_the_rest_of_the_lease(self):
        """A redelivery is deferred until the process's own lease and the clock skew can be over."""
        lease = lease_of(message_id="m1", left_seconds=40)
        ledger = Ledger(one_step(status="RUNNING"), **{STEP_ID: lease})
        disposition = handler(ledger).handle(message())
        assert disposition == Defer(delay_seconds=45, reason="own_lease")
        assert "its lease is valid for" in disposition.detail

    def test_a_step_with_an_expired_lease_is_taken_over(self):
        """A step with an expired lease is taken over with the read that showed it."""
        ledger, pipeline = Ledger(one_step(status="RUNNING"), **{STEP_ID: OVER}), Pipeline()
        assert handler(ledger, pipeline).handle(message()) == Ack(reason="succeeded")
        assert pipeline.snapshots[0].leases[STEP_ID].lease == OVER

    def test_a_running_step_without_a_lease_gets_one_and_the_message_is_acked(self):
        """A RUNNING step without a lease gets one, and the message is acked: the rescue remains."""
        ledger, pipeline = Ledger(one_step(status="RUNNING"), **{STEP_ID: None}), Pipeline()
        assert handler(ledger, pipeline).handle(message()) == Ack(reason="unleased")
        assert (ledger.adopted, pipeline.worked) == ([STEP_ID], [])

    @pytest.mark.parametrize("kind", [OutcomeKind.SUCCEEDED, OutcomeKind.FAILED])
    def test_a_running_step_without_a_lease_is_finalized_from_its_manifest(self, kind):
        """A RUNNING step without a lease is finalized from its manifest, and gets no lease."""
        ledger = Ledger(one_step(status="RUNNING"), **{STEP_ID: None})
        pipeline = Pipeline(stored=Outcome(kind=kind))
        assert handler(ledger, pipeline).handle(message()) == Ack(reason=kind.value)
        assert (ledger.adopted, pipeline.worked) == ([], [])

    def test_a_step_that_waits_for_one_of_several_accounts_is_deferred_for_long(self):
        """Its wait may last for hours, and each delivery is counted."""
        ledger, pipeline = Ledger(one_step()), Pipeline(AccountsExhausted("used up", is_for_all=False))
        disposition = handler(ledger, pipeline).handle(message())
        assert disposition == Defer(delay_seconds=600, reason="accounts")
        assert "account" in disposition.detail

    def test_a_step_that_waits_for_all_accounts_is_read_again_when_one_has_calls(self):
        """Its message waits at the circuit breaker, which is closed here, and uses up no delivery."""
        pipeline = Pipeline(AccountsExhausted("used up"), OutcomeKind.SUCCEEDED)
        assert handler(Ledger(one_step()), pipeline).handle(message()) == Ack(reason="succeeded")
        assert pipeline.worked == [STEP_ID] * 2

    def test_a_step_that_changed_before_its_finalize_is_read_again(self):
        """When another worker was first, the run is read again, and its result counts."""
        running, ended = one_step(status="RUNNING"), one_step(status="SUCCEEDED")
        ledger = Ledger(running, running, ended, **{STEP_ID: None})
        pipeline = Pipeline(stored=Outcome(kind=OutcomeKind.FINALIZE_REFUSED, reason="step_final"))
        assert handler(ledger, pipeline).handle(message()) == Ack(reason="final")
        assert ledger.reads == 3

    def test_a_step_that_ended_between_two_reads_is_final(self):
        """When a step ends between two reads, the second read counts."""
        ledger = Ledger(one_step(status="RUNNING"), one_step(status="SUCCEEDED"), **{STEP_ID: None})
        assert handler(ledger).handle(message()) == Ack(reason="final")
        assert ledger.adopted == []

    def test_a_step_of_another_type_is_ignored(self, log_lines):
        """A step of another type is ignored and acked."""
        named = message({**RUN_ONLY, "stepId": OHLCV_ID})
        assert handler(Ledger(one_step())).handle(named) == Ack(reason="ignored")
        assert log_lines()[-1]["event"] == "message_ignored"

    @pytest.mark.parametrize(
        ("run", "reason", "event"),
        [
            (None, "missing", "step_not_ready"),
            (run_of({}), "missing", "step_not_ready"),
            (one_step(status="PENDING"), "pending", "step_not_ready"),
            (one_step(dependsOn=["gone"]), "depends_on", "depends_on_blocked"),
        ],
    )
    @pytest.mark.parametrize(
        ("age", "delay"),
        [(-50, 10), (0, 10), (9.9, 10), (11, 11), (150, 150), (299, 299), (301, 300), (600, 300)],
    )
    def test_a_step_that_is_not_ready_is_deferred_by_its_age(self, run, reason, event, age, delay, log_lines):
        """A step that is not ready is deferred by its message's age, for 10 to 300 seconds."""
        disposition = handler(Ledger(run)).handle(message(age=age))
        assert disposition == Defer(delay_seconds=delay, reason=reason)
        assert disposition.detail
        assert log_lines()[-1]["event"] == event

    @pytest.mark.parametrize("run", [None, one_step(status="PENDING"), one_step(dependsOn=["gone"])])
    def test_a_step_that_is_not_ready_for_too_long_is_rejected(self, run):
        """A step that is not ready for too long is rejected with what it waited for."""
        disposition = handler(Ledger(run), grace=600).handle(message(age=600.1))
        assert isinstance(disposition, Reject)
        assert disposition.reason == "not_ready"
        assert "600 s after publishing, more than 600 s" in disposition.detail

    def test_the_age_of_a_message_is_that_by_the_server(self):
        """The wall clock of the machine may be wrong."""
        clock = HandClock()
        clock.wall += timedelta(hours=1)
        disposition = handler(Ledger(one_step(status="PENDING")), clock=clock, grace=600).handle(
            message(age=20)
        )
        assert disposition == Defer(delay_seconds=20, reason="pending")

    def test_without_grace_a_step_that_is_not_ready_is_rejected_at_once(self):
        """With a grace of 0 a step that is not ready is rejected at once."""
        assert isinstance(handler(Ledger(None), grace=0).handle(message(age=0.1)), Reject)

    @pytest.mark.parametrize("outcome", LOST)
    def test_a_lost_step_is_read_again(self, outcome):
        """After a lost step the message is settled by a new read."""
        ledger = Ledger(one_step(), one_step(status="RUNNING"), **{STEP_ID: lease_of()})
        pipeline = Pipeline(lambda _scope: outcome)
        assert handler(ledger, pipeline).handle(message()) == Ack(reason="duplicate")
        assert (pipeline.worked, ledger.reads) == ([STEP_ID], 3)

    @pytest.mark.parametrize("reason", [Reason.RUN_MISSING, Reason.STEP_MISSING])
    def test_a_run_deleted_before_the_finalize_is_acked(self, reason):
        """When the run was deleted before the finalize, the message is acked without another read."""
        gone = Outcome(kind=OutcomeKind.FINALIZE_REFUSED, reason=reason)
        ledger = Ledger(one_step(), None)
        assert handler(ledger, Pipeline(lambda _scope: gone)).handle(message()) == Ack(reason=reason.value)
        assert ledger.reads == 1

    @pytest.mark.parametrize("outcome", LOST)
    @pytest.mark.parametrize("after", [None, run_of({})])
    def test_a_step_deleted_during_the_work_is_not_waited_for(self, outcome, after, log_lines):
        """A step that is deleted during the work is acked and not waited for or quarantined."""
        pipeline = Pipeline(lambda _scope: outcome)
        assert handler(Ledger(one_step(), after), pipeline).handle(message()) == Ack(reason="missing")
        assert log_lines()[-1]["event"] == "step_noop"

    def test_a_step_lost_repeatedly_is_deferred(self):
        """A step that is lost again and again is deferred."""
        pipeline = Pipeline(OutcomeKind.CLAIM_LOST)
        disposition = handler(Ledger(one_step()), pipeline).handle(message())
        assert isinstance(disposition, Defer)
        assert (disposition.reason, disposition.detail) == ("contended", CONTENDED)
        assert len(pipeline.worked) == MAX_LOST_STEPS

    def test_a_step_lost_after_its_whole_time_is_not_started_again(self):
        """A step that is lost after its whole time is not started again for this message."""
        clock = HandClock()

        def slow(_scope):
            clock.advance(300)
            return LOST[1]

        pipeline = Pipeline(slow)
        disposition = handler(Ledger(one_step()), pipeline, clock=clock).handle(message())
        assert isinstance(disposition, Defer)
        assert (disposition.reason, pipeline.worked) == ("out_of_time", [STEP_ID])

    @pytest.mark.parametrize("run", [one_step(status="??"), RunInvalid("steps: expected a map")])
    def test_an_unreadable_run_is_rejected(self, run):
        """An unreadable run is rejected with its field."""
        disposition = handler(Ledger(run)).handle(message())
        assert isinstance(disposition, Reject)
        assert (disposition.reason, disposition.detail[:5]) == ("run_invalid", "steps")


class TestRunOnly:
    """A message that names only the run."""

    def test_eligible_steps_are_worked_one_after_another(self):
        """Eligible steps are worked one by one, by id, and the run is read again each time."""
        names = "abc"
        runs = [
            free_steps(**{n: "SUCCEEDED" if n in names[:done] else "READY" for n in names})
            for done in range(4)
        ]
        pipeline = Pipeline()
        assert handler(Ledger(*runs), pipeline).handle(message(RUN_ONLY)) == Ack(reason="final")
        assert pipeline.worked == list(names)

    def test_ready_steps_come_before_expired_ones(self):
        """READY steps come before expired ones, whatever their ids; running ones do not hold the message."""
        before = {"a": "RUNNING", "b": "RUNNING", "c": "READY"}
        states = [before, before | {"c": "SUCCEEDED"}, before | {"c": "SUCCEEDED", "b": "SUCCEEDED"}]
        reads = [states[0], states[1], states[1], states[2], states[2]]
        ledger = Ledger(*[free_steps(**state) for state in reads], a=lease_of(), b=OVER)
        pipeline = Pipeline()
        assert handler(ledger, pipeline).handle(message(RUN_ONLY)) == Ack(reason="running")
        assert pipeline.worked == ["c", "b"]

    def test_steps_without_a_lease_get_one(self):
        """RUNNING steps without a lease get one, so that they end some day."""
        ledger = Ledger(free_steps(a="RUNNING", b="RUNNING"), a=None, b=lease_of())
        assert handler(ledger).handle(message(RUN_ONLY)) == Ack(reason="running")
        assert ledger.adopted == ["a"]

    def test_one_that_became_running_between_the_two_reads_is_passed_by(self):
        """Its lease was not read; the ones after it are looked at."""
        runs = [free_steps(a="PENDING", b="RUNNING"), free_steps(a="RUNNING", b="RUNNING")]
        pipeline = Pipeline()
        disposition = handler(Ledger(*runs, runs[1], run_of(status="FAILED"), b=OVER), pipeline).handle(
            message(RUN_ONLY)
        )
        assert (disposition, pipeline.worked) == (Ack(reason="final"), ["b"])

    def test_when_one_without_a_lease_is_finalized_the_run_is_read_again(self):
        """Another step may have waited for it."""
        pipeline = Pipeline()
        pipeline.finish_unleased = lambda _snapshot, step_id, **_more: (
            Outcome(kind=OutcomeKind.SUCCEEDED) if step_id == "a" else None
        )
        running = free_steps(a="RUNNING", b="RUNNING", c="PENDING")
        ledger = Ledger(running, running, free_steps(a="SUCCEEDED", c="READY"), run_of(status="FAILED"))
        assert handler(ledger, pipeline).handle(message(RUN_ONLY)) == Ack(reason="final")
        assert (ledger.adopted, pipeline.worked) == (["b"], ["c"])

    def test_after_a_lost_step_the_next_one_is_worked(self):
        """After a lost step the next eligible one is worked."""
        runs = [
            free_steps(a="READY", b="READY"),
            free_steps(a="RUNNING", b="READY"),
            free_steps(a="RUNNING", b="SUCCEEDED"),
        ]
        pipeline = Pipeline(OutcomeKind.CLAIM_LOST, OutcomeKind.SUCCEEDED)
        ledger = Ledger(*runs, a=lease_of())
        assert isinstance(handler(ledger, pipeline).handle(message(RUN_ONLY)), Ack)
        assert pipeline.worked == ["a", "b"]

    def test_a_step_that_waits_for_one_of_several_accounts_holds_no_other_up(self):
        """The other steps are worked, and then the message is deferred for long."""
        runs = [
            free_steps(a="READY", b="READY"),
            free_steps(a="RUNNING", b="READY"),
            free_steps(a="RUNNING", b="SUCCEEDED"),
        ]
        pipeline = Pipeline(AccountsExhausted("used up", is_for_all=False), OutcomeKind.SUCCEEDED)
        ledger = Ledger(*runs, a=lease_of(message_id="m1"))
        disposition = handler(ledger, pipeline).handle(message(RUN_ONLY))
        assert disposition == Defer(delay_seconds=600, reason="accounts")
        assert pipeline.worked == ["a", "b"]

    def test_a_run_lost_repeatedly_is_deferred(self):
        """A run whose steps are lost again and again is deferred."""
        pipeline = Pipeline(OutcomeKind.CLAIM_LOST)
        disposition = handler(Ledger(one_step()), pipeline).handle(message(RUN_ONLY))
        assert isinstance(disposition, Defer)
        assert (disposition.reason, len(pipeline.worked)) == ("contended", MAX_LOST_STEPS)

    @pytest.mark.parametrize(
        ("run", "event"),
        [
            (None, "step_not_ready"),
            (one_step(status="PENDING"), "step_not_ready"),
            (one_step(dependsOn=["gone"]), "depends_on_blocked"),
            (one_step(status="RUNNING"), "step_noop"),
            (one_step(status="FAILED"), "step_noop"),
            (run_of(status="CANCELLED"), "step_noop"),
        ],
    )
    @pytest.mark.parametrize("age", [0, 10_000])
    def test_without_an_eligible_step_it_is_acked(self, run, event, age, log_lines):
        """Without an eligible step the message is acked, because the run's next update sends another."""
        pipeline, ledger = Pipeline(), Ledger(run, **{STEP_ID: lease_of()})
        assert isinstance(handler(ledger, pipeline).handle(message(RUN_ONLY, age=age)), Ack)
        assert pipeline.worked == []
        assert log_lines()[-1]["event"] == event

    def test_no_step_is_started_after_the_step_s_time(self):
        """No step is started after a step's time; the message comes back for the rest."""
        clock = HandClock()

        def slow(_scope):
            clock.advance(300)
            return OutcomeKind.SUCCEEDED

        pipeline = Pipeline(slow, AssertionError("a step was started too late"))
        ledger = Ledger(free_steps(a="READY", b="READY"))
        disposition = handler(ledger, pipeline, clock=clock).handle(message(RUN_ONLY))
        assert disposition == Defer(delay_seconds=10, reason="more_steps")
        assert disposition.detail == OUT_OF_TIME
        assert pipeline.worked == ["a"]

    def test_no_step_is_started_while_draining(self):
        """No step is started while draining, so that another worker gets the rest at once."""
        drain = Drain()

        def slow(_scope):
            drain.start()
            return OutcomeKind.SUCCEEDED

        pipeline = Pipeline(slow, AssertionError("a step was started while draining"))
        ledger = Ledger(free_steps(a="READY", b="READY"))
        disposition = handler(ledger, pipeline, drain=drain).handle(message(RUN_ONLY))
        assert (disposition, pipeline.worked) == (Nack(reason="shutdown"), ["a"])

    def test_a_broken_sibling_is_reported_after_the_good_ones_are_worked(self):
        """A broken step is reported after the valid ones were worked."""
        bad = {"bad": chart_step(status="??")}
        runs = [
            run_of({**bad, "z": chart_step(dependsOn=[])}),
            run_of({**bad, "z": chart_step(status="SUCCEEDED")}),
        ]
        pipeline = Pipeline()
        disposition = handler(Ledger(*runs), pipeline).handle(message(RUN_ONLY))
        assert isinstance(disposition, Reject)
        assert pipeline.worked == ["z"]
