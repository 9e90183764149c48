"""From a delivery to its disposition: bad messages, outages, the circuit breaker, shutdown, defects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon.handling.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from daemon.handling.disposition import Ack, Defer, Nack, Reject
from daemon.handling.handler import MAX_LOST_STEPS
from daemon.lifecycle.drain import Drain
from tests.support.fakes import RUN_ID, STEP_ID, HandClock
from tests.support.handler_fakes import MANIFEST_URI, RUN_ONLY, Ledger, Pipeline, handler, message, one_step
from worker_chart_export.errors import BackendRefused, BackendUnavailable, Interrupted, RunInvalid
from worker_chart_export.execution.outcome import Outcome, OutcomeKind

UNAVAILABLE = BackendUnavailable("firestore", "503")
STORAGE_UNAVAILABLE = BackendUnavailable("storage", "503")
STORED = Outcome(kind=OutcomeKind.FAILED, manifest_uri=MANIFEST_URI)


@pytest.fixture
def breaker():
    """A breaker for both backends whose probing thread does not run."""
    made = CircuitBreaker(probes={"firestore": lambda: None, "storage": lambda: None})
    yield made
    made.stop()


class TestBadMessages:
    """They are recognized before anything is read."""

    @pytest.mark.parametrize(
        ("body", "reason"),
        [(b"{", "body_not_json"), (b"x" * 70000, "body_too_large"), (b"{}", "run_id_missing")],
    )
    def test_a_bad_message_is_rejected_unread(self, body, reason):
        """Firestore is not asked."""
        ledger = Ledger(None)
        disposition = handler(ledger).handle(message(body))
        assert isinstance(disposition, Reject)
        assert (disposition.reason, ledger.reads) == (reason, 0)

    def test_an_event_of_no_interest_is_ignored_unread(self, log_lines):
        """And acked."""
        ledger = Ledger(None)
        assert handler(ledger).handle(message(b"", attributes={"ce-type": "other"})) == Ack(reason="ignored")
        assert (ledger.reads, log_lines()[-1]["event"]) == (0, "message_ignored")

    def test_lines_about_a_message_carry_its_ids(self, log_lines):
        """Those after it was understood."""
        handler(Ledger(one_step(status="FAILED"))).handle(message())
        received, noop = log_lines()
        assert (received["event"], received["sizeBytes"]) == ("message_received", len(message().data))
        assert (noop["runId"], noop["stepId"]) == (RUN_ID, STEP_ID)


class TestOutages:
    """A backend that is away or refuses."""

    @pytest.mark.parametrize("backend", ["firestore", "storage"])
    @pytest.mark.parametrize(
        ("kind", "word"), [(BackendUnavailable, "unavailable"), (BackendRefused, "refused")]
    )
    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_backend_that_fails_defers_the_message(self, backend, kind, word, body):
        """For 1 to 60 seconds."""
        handle = handler(Ledger(one_step()), Pipeline(kind(backend, "503"))).handle
        for _ in range(20):
            disposition = handle(message(body))
            assert isinstance(disposition, Defer)
            assert disposition.reason == f"{backend}_{word}"
            assert 1 <= disposition.delay_seconds <= 60

    @pytest.mark.parametrize("ledger", [Ledger(UNAVAILABLE), Ledger(one_step(status="RUNNING"), UNAVAILABLE)])
    def test_a_read_that_fails_defers_the_message(self, ledger):
        """Before any work; the second read too."""
        assert isinstance(handler(ledger).handle(message()), Defer)

    @pytest.mark.parametrize("error", [UNAVAILABLE, STORAGE_UNAVAILABLE])
    def test_five_outages_in_a_row_open_the_breaker(self, error, breaker):
        """A read in between is no answer of Cloud Storage; one of Firestore itself is."""
        ledger = Ledger(UNAVAILABLE) if error is UNAVAILABLE else Ledger(one_step())
        handle = handler(ledger, Pipeline(error), breaker=breaker).handle
        for _ in range(FAILURES_TO_OPEN):
            assert not breaker.is_open
            handle(message())
        assert breaker.unavailable_backends == (error.backend,)

    @pytest.mark.parametrize("error", [BackendRefused("firestore", "403"), RunInvalid("x"), KeyError("x")])
    def test_errors_of_one_message_never_open_it(self, error, breaker):
        """PermissionDenied, InvalidArgument, NotFound, a broken run, our own mistakes."""
        handle = handler(Ledger(one_step()), Pipeline(error), breaker=breaker).handle
        for _ in range(3 * FAILURES_TO_OPEN):
            handle(message())
        assert not breaker.is_open

    @pytest.mark.parametrize("between", [STORED, OutcomeKind.FAILED, OutcomeKind.CLAIM_LOST])
    def test_only_a_manifest_shows_that_storage_answers(self, between, breaker):
        """A step that failed without one may have failed because Cloud Storage stayed away."""
        gone = [between, *[STORAGE_UNAVAILABLE] * (FAILURES_TO_OPEN - 1)]
        outcomes = [*[STORAGE_UNAVAILABLE] * (FAILURES_TO_OPEN - 1), *gone]
        pipeline = Pipeline(*[lambda _scope, outcome=outcome: outcome for outcome in outcomes])
        handle = handler(Ledger(one_step()), pipeline, breaker=breaker).handle
        while len(pipeline.worked) < len(outcomes) and not breaker.is_open:
            handle(message())
        assert breaker.is_open is (between is not STORED)


class TestStops:
    """A worker that ends."""

    def test_while_draining_nothing_is_started(self):
        """Not even a read; a bad message is others' too."""
        drain, ledger = Drain(), Ledger(one_step())
        drain.start()
        for body in (None, b"{"):
            assert handler(ledger, drain=drain).handle(message(body)) == Nack(reason="shutdown")
        assert ledger.reads == 0

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_message_waits_at_the_open_breaker_and_is_nacked_by_the_drain(self, breaker, body):
        """Meanwhile nothing is read."""
        drain, ledger = Drain(), Ledger(one_step())
        drain.on_start(breaker.stop)
        for _ in range(FAILURES_TO_OPEN):
            breaker.record_failure("firestore")
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(handler(ledger, drain=drain, breaker=breaker).handle, message(body))
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            drain.start()
            assert waiting.result(10) == Nack(reason="shutdown")
        assert ledger.reads == 0

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_message_that_waited_longer_than_a_step_may_take_starts_none(self, body):
        """Pub/Sub may have delivered it to another worker: it is deferred."""
        clock, pipeline = HandClock(), Pipeline()

        class SlowBreaker(CircuitBreaker):
            def wait_until_closed(self):
                clock.advance(301)
                return True

        handle = handler(Ledger(one_step()), pipeline, clock=clock, breaker=SlowBreaker(probes={})).handle
        disposition = handle(message(body))
        assert isinstance(disposition, Defer)
        assert disposition.reason in {"out_of_time", "more_steps"}
        assert pipeline.worked == []

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_step_stopped_in_the_middle_is_nacked(self, body):
        """Another worker is to have the message at once."""
        drain = Drain()

        def work(scope):
            drain.stop_steps()
            scope.check()

        handle = handler(Ledger(one_step()), Pipeline(work), drain=drain).handle
        assert handle(message(body)) == Nack(reason="shutdown")

    def test_a_step_is_known_to_the_drain_while_it_is_worked(self):
        """And not after it."""
        drain, seen = Drain(), []

        def work(_scope):
            seen.append(drain.steps_running)
            return OutcomeKind.SUCCEEDED

        handler(Ledger(one_step()), Pipeline(work), drain=drain).handle(message())
        assert (seen, drain.steps_running) == ([1], 0)

    def test_an_interruption_is_no_mistake(self, log_lines):
        """It is a third outcome."""
        handle = handler(Ledger(one_step()), Pipeline(Interrupted("x"))).handle
        assert handle(message()) == Nack(reason="shutdown")
        assert "ERROR" not in {line["severity"] for line in log_lines()}


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("y"), MemoryError(), AssertionError()])
def test_a_mistake_of_our_own_defers_and_is_logged_with_its_trace(error, log_lines):
    """An error that left the callback would end the stream."""
    disposition = handler(Ledger(one_step()), Pipeline(error)).handle(message())
    assert isinstance(disposition, Defer)
    assert disposition.reason == "internal_error"
    (line,) = [line for line in log_lines() if line["event"] == "internal_error"]
    assert "Traceback" in line["exception"]


class TestBackoff:
    """How deferrals in a row grow, and what ends the row. Without a patch: often enough, jitter tells."""

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_success_ends_the_outage(self, body):
        """The next failure costs 4 s at most again, where a seventh in a row would draw from up to 60 s."""
        done = one_step(status="SUCCEEDED")
        for _ in range(30):
            handle = handler(Ledger(*[UNAVAILABLE] * 6, done, UNAVAILABLE)).handle
            for _ in range(6):
                assert isinstance(handle(message(body)), Defer)
            assert isinstance(handle(message(body)), Ack)
            assert _delay(handle(message(body))) <= 4

    def test_worked_steps_end_the_outage_too(self):
        """It is the same pipeline that failed."""
        for _ in range(30):
            pipeline = Pipeline(*[UNAVAILABLE] * 6, OutcomeKind.SUCCEEDED, UNAVAILABLE)
            handle = handler(Ledger(one_step()), pipeline).handle
            assert [type(handle(message())) for _ in range(7)] == [Defer] * 6 + [Ack]
            assert _delay(handle(message())) <= 4

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_contention_that_lasts_is_waited_for_longer_and_longer(self, body):
        """A step that is lost over and over is no answer: the deferral itself does not end the row."""
        handle = handler(Ledger(one_step()), Pipeline(OutcomeKind.CLAIM_LOST)).handle
        dispositions = [handle(message(body)) for _ in range(60)]
        assert {disposition.reason for disposition in dispositions} == {"contended"}
        delays = [_delay(disposition) for disposition in dispositions]
        assert delays[0] <= 4
        assert 30 < max(delays) <= 60

    def test_an_outage_between_contentions_goes_on_where_they_were(self):
        """One row of failures, whatever they are."""
        delays = []
        for _ in range(30):
            outcomes = [OutcomeKind.CLAIM_LOST] * MAX_LOST_STEPS * 5
            handle = handler(Ledger(one_step()), Pipeline(*outcomes, UNAVAILABLE)).handle
            dispositions = [handle(message()) for _ in range(6)]
            assert [d.reason for d in dispositions] == ["contended"] * 5 + ["firestore_unavailable"]
            delays.append(_delay(dispositions[-1]))
        assert max(delays) > 30


def _delay(disposition):
    assert isinstance(disposition, Defer)
    return disposition.delay_seconds
