"""From a delivery to its disposition: each row of the contract's table that there is so far."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from daemon.disposition import Ack, Defer, Nack, Reject
from daemon.drain import Drain
from daemon.handler import MAX_LOOKS, IncomingMessage, MessageHandler, Sight, look_at_rest, look_at_step
from tests.unit.doubles import (
    NOON,
    OHLCV_ID,
    RUN_ID,
    STEP_ID,
    HandClock,
    budget_of,
    chart_step,
    ohlcv_step,
    run_of,
)
from worker_chart_export.errors import BackendRefused, BackendUnavailable, Interrupted, RunInvalid
from worker_chart_export.flow_run import StepStatus
from worker_chart_export.orchestration import Reason
from worker_chart_export.outcome import Outcome, OutcomeKind

FINAL = ["SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"]


class Ledger:
    """Gives runs in turn, the last again and again; an error among them is raised."""

    def __init__(self, *runs):
        self.runs = list(runs)
        self.reads = 0

    def read(self, run_id):
        """The next."""
        assert run_id == RUN_ID
        run = self.runs[min(self.reads, len(self.runs) - 1)]
        self.reads += 1
        if isinstance(run, Exception):
            raise run
        return run


class Pipeline:
    """Ends the steps it is given as told, in turn."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes) or [OutcomeKind.SUCCEEDED]
        self.worked = []
        self.budgets = []

    def new_budget(self):
        """A budget of half a minute."""
        return budget_of()

    def run(self, run_id, step_id, *, budget):
        """Work, in no time."""
        assert run_id == RUN_ID
        self.budgets.append(budget)
        outcome = self.outcomes[min(len(self.worked), len(self.outcomes) - 1)]
        self.worked.append(step_id)
        if callable(outcome) and not isinstance(outcome, OutcomeKind):
            outcome = outcome(budget)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome if isinstance(outcome, Outcome) else Outcome(kind=outcome, reason="r")


def _message(body=None, *, age=0.0, attributes=None, attempt=None):
    data = (
        body if isinstance(body, bytes) else json.dumps(body or {"runId": RUN_ID, "stepId": STEP_ID}).encode()
    )
    return IncomingMessage(
        message_id="m1",
        data=data,
        attributes=attributes or {},
        publish_time=NOON - timedelta(seconds=age),
        delivery_attempt=attempt,
    )


RUN_ONLY = {"runId": RUN_ID}


def _handler(ledger, pipeline=None, *, drain=None, clock=None, grace=600.0, step_timeout=300.0):
    return MessageHandler(
        ledger=ledger,
        pipeline=pipeline or Pipeline(),
        drain=drain or Drain(),
        clock=clock or HandClock(),
        step_timeout_seconds=step_timeout,
        not_ready_grace_seconds=grace,
    )


def _one(**step):
    return run_of({OHLCV_ID: ohlcv_step(), STEP_ID: chart_step(**step)})


class TestLooks:
    """What a run says about a step; pure."""

    @pytest.mark.parametrize("status", StepStatus)
    def test_every_status_has_a_sight(self, status):
        """Of a named chart step."""
        expected = "final" if status.is_final else status.value.lower()
        assert look_at_step(_one(status=status.value), STEP_ID).sight == expected

    @pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "CANCELLED"])
    def test_a_final_run_makes_every_step_final(self, status):
        """Whatever the step says."""
        assert look_at_step(run_of(status=status), STEP_ID).sight is Sight.FINAL

    @pytest.mark.parametrize("step_status", ["READY", "SUCCEEDED"])
    def test_another_type_is_another_type_in_any_status(self, step_status):
        """It is others' business."""
        run = run_of({"s": ohlcv_step(status=step_status)})
        assert look_at_step(run, "s").sight is Sight.OTHER_TYPE

    def test_unmet_dependencies_are_named(self):
        """So that a person sees what is waited for."""
        found = look_at_step(_one(dependsOn=[OHLCV_ID, "gone", "late"]), STEP_ID)
        assert (found.sight, found.words) == (Sight.DEPENDS_ON, "dependsOn not SUCCEEDED: gone, late")

    def test_what_is_missing_is_said(self):
        """Run or step."""
        assert look_at_step(None, STEP_ID).words == "the run does not exist"
        assert look_at_step(run_of(), "gone").words == "no such step"

    def test_the_rest_of_a_run_with_an_unreadable_step_is_invalid(self):
        """Somebody has to mend it."""
        run = run_of({"bad": chart_step(status="??"), "done": chart_step(status="SUCCEEDED")})
        with pytest.raises(RunInvalid, match=r"steps\.bad\.status"):
            look_at_rest(run)

    @pytest.mark.parametrize(
        ("steps", "sight"),
        [
            ({"a": chart_step(status="SUCCEEDED"), "b": chart_step(status="PENDING")}, Sight.PENDING),
            ({"a": chart_step(dependsOn=["gone"])}, Sight.DEPENDS_ON),
            ({"a": chart_step(status="RUNNING")}, Sight.FINAL),
            ({"a": ohlcv_step(status="READY")}, Sight.FINAL),
            ({}, Sight.FINAL),
        ],
    )
    def test_the_rest_of_a_run(self, steps, sight):
        """A waiting step is what there is to say; RUNNING ones of others don't hold the message."""
        assert look_at_rest(run_of(steps)).sight is sight


class TestNamedStep:
    """A message that names its step."""

    @pytest.mark.parametrize("kind", [OutcomeKind.SUCCEEDED, OutcomeKind.FAILED])
    def test_a_ready_step_is_worked_and_acked(self, kind):
        """Also when it failed: that is a result."""
        pipeline = Pipeline(kind)
        assert _handler(Ledger(_one()), pipeline).handle(_message()) == Ack(reason=kind.value)
        assert pipeline.worked == [STEP_ID]

    @pytest.mark.parametrize("status", [*FINAL, "RUNNING"])
    def test_a_step_that_is_done_or_running_is_acked(self, status, log_lines):
        """Nothing is worked."""
        pipeline = Pipeline()
        assert isinstance(_handler(Ledger(_one(status=status)), pipeline).handle(_message()), Ack)
        assert pipeline.worked == []
        assert log_lines()[-1]["event"] == "step_noop"

    def test_a_step_of_another_type_is_ignored(self, log_lines):
        """And acked."""
        message = _message({"runId": RUN_ID, "stepId": OHLCV_ID})
        assert _handler(Ledger(_one())).handle(message) == Ack(reason="ignored")
        assert log_lines()[-1]["event"] == "message_ignored"

    @pytest.mark.parametrize(
        ("run", "reason", "event"),
        [
            (None, "missing", "step_not_ready"),
            (run_of({}), "missing", "step_not_ready"),
            (_one(status="PENDING"), "pending", "step_not_ready"),
            (_one(dependsOn=["gone"]), "depends_on", "depends_on_blocked"),
        ],
    )
    @pytest.mark.parametrize(
        ("age", "delay"),
        [(-50, 10), (0, 10), (9.9, 10), (11, 11), (150, 150), (299, 299), (301, 300), (600, 300)],
    )
    def test_what_is_not_ready_is_deferred_by_its_age(self, run, reason, event, age, delay, log_lines):
        """10 to 300 seconds."""
        disposition = _handler(Ledger(run)).handle(_message(age=age))
        assert disposition == Defer(delay_seconds=delay, reason=reason)
        assert log_lines()[-1]["event"] == event

    @pytest.mark.parametrize("run", [None, _one(status="PENDING"), _one(dependsOn=["gone"])])
    def test_what_is_not_ready_for_too_long_is_rejected(self, run):
        """With what it waited for."""
        disposition = _handler(Ledger(run), grace=600).handle(_message(age=600.1))
        assert isinstance(disposition, Reject)
        assert disposition.reason == "not_ready"
        assert "600 s after publishing, more than 600 s" in disposition.detail

    def test_without_grace_what_is_not_ready_is_rejected_at_once(self):
        """0 switches the waiting off."""
        assert isinstance(_handler(Ledger(None), grace=0).handle(_message(age=0.1)), Reject)

    @pytest.mark.parametrize("kind", [OutcomeKind.CLAIM_LOST, OutcomeKind.FINALIZE_REFUSED])
    def test_a_step_lost_to_others_is_looked_at_again(self, kind):
        """And acked by what is found then."""
        ledger = Ledger(_one(), _one(status="RUNNING"))
        assert _handler(ledger, Pipeline(kind)).handle(_message()) == Ack(reason="running")
        assert ledger.reads == 2

    @pytest.mark.parametrize("reason", [Reason.RUN_MISSING, Reason.STEP_MISSING])
    def test_a_run_gone_at_finalize_is_done_with(self, reason):
        """There is nothing left to look at again."""
        gone = Outcome(kind=OutcomeKind.FINALIZE_REFUSED, reason=reason)
        ledger = Ledger(_one(), None)
        assert _handler(ledger, Pipeline(lambda _budget: gone)).handle(_message()) == Ack(reason=reason.value)
        assert ledger.reads == 1

    def test_a_step_lost_without_end_is_left_for_later(self):
        """Not looked at for ever."""
        pipeline = Pipeline(OutcomeKind.CLAIM_LOST)
        disposition = _handler(Ledger(_one()), pipeline).handle(_message())
        assert isinstance(disposition, Defer)
        assert (disposition.reason, len(pipeline.worked)) == ("contended", MAX_LOOKS)

    @pytest.mark.parametrize("run", [_one(status="??"), RunInvalid("steps: expected a map")])
    def test_an_unreadable_run_is_rejected(self, run):
        """With the field."""
        disposition = _handler(Ledger(run)).handle(_message())
        assert isinstance(disposition, Reject)
        assert (disposition.reason, disposition.detail[:5]) == ("run_invalid", "steps")


class TestRunOnly:
    """A message that names only the run."""

    def test_eligible_steps_are_worked_one_after_another(self):
        """Lowest id first, the run read again each time."""
        names = ["a", "b", "c"]
        runs = [
            run_of(
                {
                    n: chart_step(dependsOn=[], status="SUCCEEDED" if n in names[:done] else "READY")
                    for n in names
                }
            )
            for done in range(4)
        ]
        pipeline = Pipeline()
        assert _handler(Ledger(*runs), pipeline).handle(_message(RUN_ONLY)) == Ack(reason="final")
        assert pipeline.worked == names

    def test_a_step_lost_to_others_is_no_end(self):
        """The next eligible one is worked."""
        ready = chart_step(dependsOn=[])
        runs = [
            run_of({"a": ready, "b": ready}),
            run_of({"a": chart_step(status="RUNNING"), "b": ready}),
            run_of({"a": chart_step(status="RUNNING"), "b": chart_step(status="SUCCEEDED")}),
        ]
        pipeline = Pipeline(OutcomeKind.CLAIM_LOST, OutcomeKind.SUCCEEDED)
        assert isinstance(_handler(Ledger(*runs), pipeline).handle(_message(RUN_ONLY)), Ack)
        assert pipeline.worked == ["a", "b"]

    @pytest.mark.parametrize(
        ("run", "event"),
        [
            (None, "step_not_ready"),
            (_one(status="PENDING"), "step_not_ready"),
            (_one(dependsOn=["gone"]), "depends_on_blocked"),
            (_one(status="RUNNING"), "step_noop"),
            (_one(status="FAILED"), "step_noop"),
            (run_of(status="CANCELLED"), "step_noop"),
        ],
    )
    @pytest.mark.parametrize("age", [0, 10_000])
    def test_with_nothing_eligible_it_is_acked(self, run, event, age, log_lines):
        """The run's next update brings another event."""
        pipeline = Pipeline()
        assert isinstance(_handler(Ledger(run), pipeline).handle(_message(RUN_ONLY, age=age)), Ack)
        assert pipeline.worked == []
        assert log_lines()[-1]["event"] == event

    def test_no_step_is_started_after_the_step_s_time(self):
        """The message comes back for the rest."""
        clock = HandClock()

        def slow(_budget):
            clock.advance(301)
            return OutcomeKind.SUCCEEDED

        pipeline = Pipeline(slow, AssertionError("a step was started too late"))
        run = run_of({"a": chart_step(dependsOn=[]), "b": chart_step(dependsOn=[])})
        disposition = _handler(Ledger(run), pipeline, clock=clock).handle(_message(RUN_ONLY))
        assert disposition == Defer(delay_seconds=10, reason="more_steps")
        assert pipeline.worked == ["a"]

    def test_no_step_is_started_while_draining(self):
        """Another worker is to have the rest at once."""
        drain = Drain()

        def slow(_budget):
            drain.start()
            return OutcomeKind.SUCCEEDED

        pipeline = Pipeline(slow, AssertionError("a step was started while draining"))
        run = run_of({"a": chart_step(dependsOn=[]), "b": chart_step(dependsOn=[])})
        disposition = _handler(Ledger(run), pipeline, drain=drain).handle(_message(RUN_ONLY))
        assert disposition == Nack(reason="shutdown")
        assert pipeline.worked == ["a"]

    def test_a_broken_sibling_is_told_after_the_good_ones_are_worked(self):
        """It disturbs only itself."""
        bad = {"bad": chart_step(status="??")}
        runs = [
            run_of({**bad, "z": chart_step(dependsOn=[])}),
            run_of({**bad, "z": chart_step(status="SUCCEEDED")}),
        ]
        pipeline = Pipeline()
        disposition = _handler(Ledger(*runs), pipeline).handle(_message(RUN_ONLY))
        assert isinstance(disposition, Reject)
        assert pipeline.worked == ["z"]


class TestOtherEnds:
    """Bad messages, outages, shutdown, mistakes of our own."""

    @pytest.mark.parametrize(
        ("body", "reason"),
        [(b"{", "body_not_json"), (b"x" * 70000, "body_too_large"), (b"{}", "run_id_missing")],
    )
    def test_a_bad_message_is_rejected_unread(self, body, reason):
        """Firestore is not asked."""
        ledger = Ledger(None)
        disposition = _handler(ledger).handle(_message(body))
        assert isinstance(disposition, Reject)
        assert (disposition.reason, ledger.reads) == (reason, 0)

    def test_an_event_of_no_interest_is_ignored_unread(self, log_lines):
        """And acked."""
        ledger = Ledger(None)
        message = _message(b"", attributes={"ce-type": "other"})
        assert _handler(ledger).handle(message) == Ack(reason="ignored")
        assert (ledger.reads, log_lines()[-1]["event"]) == (0, "message_ignored")

    @pytest.mark.parametrize("backend", ["firestore", "storage"])
    @pytest.mark.parametrize(
        ("kind", "word"), [(BackendUnavailable, "unavailable"), (BackendRefused, "refused")]
    )
    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_backend_that_fails_defers_the_message(self, backend, kind, word, body):
        """For 1 to 60 seconds."""
        handler = _handler(Ledger(_one()), Pipeline(kind(backend, "503")))
        for _ in range(20):
            disposition = handler.handle(_message(body))
            assert isinstance(disposition, Defer)
            assert disposition.reason == f"{backend}_{word}"
            assert 1 <= disposition.delay_seconds <= 60

    def test_a_read_that_fails_defers_the_message(self):
        """Before any work."""
        disposition = _handler(Ledger(BackendUnavailable("firestore", "503"))).handle(_message())
        assert isinstance(disposition, Defer)

    def test_while_draining_nothing_is_started(self):
        """Not even a read; a bad message is others' too."""
        drain, ledger = Drain(), Ledger(_one())
        drain.start()
        for message in (_message(), _message(b"{")):
            assert _handler(ledger, drain=drain).handle(message) == Nack(reason="shutdown")
        assert ledger.reads == 0

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_step_stopped_in_the_middle_is_nacked(self, body):
        """Another worker is to have the message at once."""
        drain = Drain()

        def work(budget):
            drain.stop_steps()
            budget.check()

        handler = _handler(Ledger(_one()), Pipeline(work), drain=drain)
        assert handler.handle(_message(body)) == Nack(reason="shutdown")

    def test_a_step_is_known_to_the_drain_while_it_is_worked(self):
        """And not after it."""
        drain, seen = Drain(), []

        def work(_budget):
            seen.append(drain.steps_running)
            return OutcomeKind.SUCCEEDED

        _handler(Ledger(_one()), Pipeline(work), drain=drain).handle(_message())
        assert (seen, drain.steps_running) == ([1], 0)

    @pytest.mark.parametrize("error", [KeyError("x"), ValueError("y"), MemoryError(), AssertionError()])
    def test_a_mistake_of_our_own_defers_and_is_logged_with_its_trace(self, error, log_lines):
        """An error that left the callback would end the stream."""
        disposition = _handler(Ledger(_one()), Pipeline(error)).handle(_message())
        assert isinstance(disposition, Defer)
        assert disposition.reason == "internal_error"
        (line,) = [line for line in log_lines() if line["event"] == "internal_error"]
        assert "Traceback" in line["exception"]

    def test_an_interruption_is_no_mistake(self, log_lines):
        """It is a third outcome."""
        assert _handler(Ledger(_one()), Pipeline(Interrupted("x"))).handle(_message()) == Nack(
            reason="shutdown"
        )
        assert "ERROR" not in {line["severity"] for line in log_lines()}

    def test_lines_about_a_message_carry_its_ids(self, log_lines):
        """Those after it was understood."""
        _handler(Ledger(_one(status="FAILED"))).handle(_message())
        received, noop = log_lines()
        assert (received["event"], received["sizeBytes"]) == ("message_received", len(_message().data))
        assert (noop["runId"], noop["stepId"]) == (RUN_ID, STEP_ID)


AWAY = BackendUnavailable("firestore", "503")


class TestBackoff:
    """How deferrals in a row grow, and what ends the row. Without a patch: often enough, jitter tells."""

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_success_ends_the_outage(self, body):
        """The next failure costs 4 s at most again, where a seventh in a row would draw from up to 60 s."""
        done = _one(status="SUCCEEDED")
        for _ in range(30):
            handler = _handler(Ledger(*[AWAY] * 6, done, AWAY))
            for _ in range(6):
                assert isinstance(handler.handle(_message(body)), Defer)
            assert isinstance(handler.handle(_message(body)), Ack)
            assert _delay(handler.handle(_message(body))) <= 4

    def test_worked_steps_end_the_outage_too(self):
        """It is the same pipeline that failed."""
        for _ in range(30):
            handler = _handler(Ledger(_one()), Pipeline(*[AWAY] * 6, OutcomeKind.SUCCEEDED, AWAY))
            assert [type(handler.handle(_message())) for _ in range(7)] == [Defer] * 6 + [Ack]
            assert _delay(handler.handle(_message())) <= 4

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_contention_that_lasts_is_waited_for_longer_and_longer(self, body):
        """A step that is lost over and over is no answer: the deferral itself does not end the row."""
        handler = _handler(Ledger(_one()), Pipeline(OutcomeKind.CLAIM_LOST))
        dispositions = [handler.handle(_message(body)) for _ in range(60)]
        assert {disposition.reason for disposition in dispositions} == {"contended"}
        delays = [_delay(disposition) for disposition in dispositions]
        assert delays[0] <= 4
        assert 30 < max(delays) <= 60

    def test_an_outage_between_contentions_goes_on_where_they_were(self):
        """One row of failures, whatever they are."""
        delays = []
        for _ in range(30):
            outcomes = [OutcomeKind.CLAIM_LOST] * MAX_LOOKS * 5
            handler = _handler(Ledger(_one()), Pipeline(*outcomes, AWAY))
            dispositions = [handler.handle(_message()) for _ in range(6)]
            assert [d.reason for d in dispositions] == ["contended"] * 5 + ["firestore_unavailable"]
            delays.append(_delay(dispositions[-1]))
        assert max(delays) > 30


def _delay(disposition):
    assert isinstance(disposition, Defer)
    return disposition.delay_seconds
