"""From a delivery to its disposition: bad messages, outages, shutdown, our own errors."""

from __future__ import annotations

import errno
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
from worker_chart_export.timing import Backoff

UNAVAILABLE = BackendUnavailable("firestore", "503")
STORAGE_UNAVAILABLE = BackendUnavailable("storage", "503")
STORED = Outcome(kind=OutcomeKind.FAILED, manifest_uri=MANIFEST_URI)


@pytest.fixture
def breaker():
    """Return a circuit breaker for both backends that is never probed."""
    made = CircuitBreaker(probes={"firestore": lambda: None, "storage": lambda: None})
    yield made
    made.stop()


class TestBadMessages:
    """Bad messages are recognized before anything is read."""

    @pytest.mark.parametrize(
        ("body", "reason"),
        [(b"{", "body_not_json"), (b"x" * 70000, "body_too_large"), (b"{}", "run_id_missing")],
    )
    def test_a_bad_message_is_rejected_unread(self, body, reason):
        """A bad message is rejected without a read of Firestore."""
        ledger = Ledger(None)
        disposition = handler(ledger).handle(message(body))
        assert isinstance(disposition, Reject)
        assert (disposition.reason, ledger.reads) == (reason, 0)

    def test_an_event_of_no_interest_is_ignored_unread(self, log_lines):
        """An irrelevant event is acked without a read."""
        ledger = Ledger(None)
        assert handler(ledger).handle(message(b"", attributes={"ce-type": "other"})) == Ack(reason="ignored")
        assert (ledger.reads, log_lines()[-1]["event"]) == (0, "message_ignored")

    def test_lines_about_a_message_carry_its_ids(self, log_lines):
        """Log lines after the parse carry the message's ids."""
        handler(Ledger(one_step(status="FAILED"))).handle(message())
        received, noop = log_lines()
        assert (received["event"], received["sizeBytes"]) == ("message_received", len(message().data))
        assert (noop["runId"], noop["stepId"]) == (RUN_ID, STEP_ID)

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_the_trace_of_a_message_carries_its_ids(self, body, monkeypatch):
        """A message that names only a run has no step."""
        noted = []
        monkeypatch.setattr("daemon.handling.handler.annotate", lambda **ids: noted.append(ids))
        handler(Ledger(one_step(status="FAILED"))).handle(message(body))
        assert noted == [{"runId": RUN_ID} | ({} if body else {"stepId": STEP_ID})]


class TestOutages:
    """A backend that is unavailable or refuses."""

    @pytest.mark.parametrize("backend", ["firestore", "storage"])
    @pytest.mark.parametrize(
        ("kind", "word"), [(BackendUnavailable, "unavailable"), (BackendRefused, "refused")]
    )
    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_backend_that_fails_defers_the_message(self, backend, kind, word, body):
        """A failing backend defers the message for 1 to 60 seconds."""
        handle = handler(Ledger(one_step()), Pipeline(kind(backend, "503"))).handle
        for _ in range(20):
            disposition = handle(message(body))
            assert isinstance(disposition, Defer)
            assert disposition.reason == f"{backend}_{word}"
            assert 1 <= disposition.delay_seconds <= 60

    @pytest.mark.parametrize("ledger", [Ledger(UNAVAILABLE), Ledger(one_step(status="RUNNING"), UNAVAILABLE)])
    def test_a_read_that_fails_defers_the_message(self, ledger):
        """A failing read, the first or the second, defers the message before any work."""
        assert isinstance(handler(ledger).handle(message()), Defer)

    @pytest.mark.parametrize("error", [UNAVAILABLE, STORAGE_UNAVAILABLE])
    def test_five_outages_in_a_row_open_the_circuit_breaker(self, error, breaker):
        """Five outages in a row open the circuit breaker; a read of Firestore resets only its own count."""
        ledger = Ledger(UNAVAILABLE) if error is UNAVAILABLE else Ledger(one_step())
        handle = handler(ledger, Pipeline(error), breaker=breaker).handle
        for _ in range(FAILURES_TO_OPEN):
            assert not breaker.is_open
            handle(message())
        assert list(breaker.pauses) == [error.backend]

    def test_a_message_that_is_handled_ends_the_row_of_outages(self, breaker):
        """Firestore has answered, also if there was nothing to do."""
        gone = [UNAVAILABLE] * (FAILURES_TO_OPEN - 1)
        handle = handler(Ledger(*gone, one_step(status="FAILED"), *gone, None), breaker=breaker).handle
        for _ in range(2 * FAILURES_TO_OPEN):
            handle(message())
        assert not breaker.is_open

    @pytest.mark.parametrize("error", [BackendRefused("firestore", "403"), RunInvalid("x"), KeyError("x")])
    def test_errors_that_one_message_can_cause_never_open_it(self, error, breaker):
        """Errors that one message can cause, such as NotFound or a broken run, never open it."""
        handle = handler(Ledger(one_step()), Pipeline(error), breaker=breaker).handle
        for _ in range(3 * FAILURES_TO_OPEN):
            handle(message())
        assert not breaker.is_open

    @pytest.mark.parametrize("between", [STORED, OutcomeKind.FAILED, OutcomeKind.CLAIM_LOST])
    def test_only_a_manifest_proves_that_storage_works(self, between, breaker):
        """Only a manifest proves that Storage works: a step can fail without one during an outage."""
        gone = [between, *[STORAGE_UNAVAILABLE] * (FAILURES_TO_OPEN - 1)]
        outcomes = [*[STORAGE_UNAVAILABLE] * (FAILURES_TO_OPEN - 1), *gone]
        pipeline = Pipeline(*[lambda _scope, outcome=outcome: outcome for outcome in outcomes])
        handle = handler(Ledger(one_step()), pipeline, breaker=breaker).handle
        while len(pipeline.worked) < len(outcomes) and not breaker.is_open:
            handle(message())
        assert breaker.is_open is (between is not STORED)


class TestStops:
    """A worker that stops."""

    def test_while_draining_nothing_is_started(self):
        """While draining nothing is read or rejected."""
        drain, ledger = Drain(), Ledger(one_step())
        drain.start()
        for body in (None, b"{"):
            assert handler(ledger, drain=drain).handle(message(body)) == Nack(reason="shutdown")
        assert ledger.reads == 0

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_message_at_the_open_circuit_breaker_is_nacked_when_the_worker_drains(self, breaker, body):
        """A message that waits at the open circuit breaker is nacked unread when the worker drains."""
        drain, ledger = Drain(), Ledger(one_step())
        drain.on_start(breaker.stop)
        for _ in range(FAILURES_TO_OPEN):
            breaker.record_failure(BackendUnavailable("firestore", "x"))
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(handler(ledger, drain=drain, breaker=breaker).handle, message(body))
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            drain.start()
            assert waiting.result(10) == Nack(reason="shutdown")
        assert ledger.reads == 0

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_message_that_waits_when_the_stream_closes_is_given_back(self, breaker, body):
        """A message that waits when a long pause closes the stream is deferred unread, not nacked."""
        ledger = Ledger(one_step())
        breaker.pause("firestore", "x", probe=lambda: "x")
        breaker.give_back()
        disposition = handler(ledger, breaker=breaker).handle(message(body))
        assert disposition == Defer(delay_seconds=10, reason="paused")
        assert ledger.reads == 0

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_message_that_waited_longer_than_a_step_may_take_starts_none(self, body):
        """A message that waited longer than a step's time is deferred, because it may be redelivered."""
        clock, pipeline = HandClock(), Pipeline()

        class SlowBreaker(CircuitBreaker):
            def wait_until_closed(self):
                clock.advance(300)

        handle = handler(Ledger(one_step()), pipeline, clock=clock, breaker=SlowBreaker(probes={})).handle
        disposition = handle(message(body))
        assert isinstance(disposition, Defer)
        assert disposition.reason in {"out_of_time", "more_steps"}
        assert pipeline.worked == []

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_step_stopped_in_the_middle_is_nacked(self, body):
        """The message of a stopped step is nacked, so that another worker gets it at once."""
        drain = Drain()

        def work(scope):
            drain.stop_steps()
            scope.check()

        handle = handler(Ledger(one_step()), Pipeline(work), drain=drain).handle
        assert handle(message(body)) == Nack(reason="shutdown")

    def test_a_step_is_known_to_the_drain_while_it_is_worked(self):
        """The drain knows a step while it is worked, and not after it."""
        drain, seen = Drain(), []

        def work(_scope):
            seen.append(drain.steps_running)
            return OutcomeKind.SUCCEEDED

        handler(Ledger(one_step()), Pipeline(work), drain=drain).handle(message())
        assert (seen, drain.steps_running) == ([1], 0)

    def test_an_interruption_is_no_error(self, log_lines):
        """An interruption is a third outcome and not an error."""
        handle = handler(Ledger(one_step()), Pipeline(Interrupted("x"))).handle
        assert handle(message()) == Nack(reason="shutdown")
        assert "ERROR" not in {line["severity"] for line in log_lines()}


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("y"), OSError(2, "x"), AssertionError()])
def test_an_unexpected_error_defers_and_is_logged_with_its_trace(error, log_lines):
    """An unexpected error defers the message and is logged; outside the callback it would end the stream."""
    disposition = handler(Ledger(one_step()), Pipeline(error)).handle(message())
    assert isinstance(disposition, Defer)
    assert disposition.reason == "internal_error"
    (line,) = [line for line in log_lines() if line["event"] == "internal_error"]
    assert "Traceback" in line["exception"]


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "x")])
def test_a_machine_without_resources_defers_as_an_outage_does(error):
    """A lack of memory or descriptors is no internal error: the message is deferred with that reason."""
    disposition = handler(Ledger(one_step()), Pipeline(error)).handle(message())
    assert isinstance(disposition, Defer)
    assert disposition.reason == "machine_unavailable"


class TestBackoff:
    """Deferrals in a row grow; a message that is handled ends the row."""

    @pytest.fixture(autouse=True)
    def _numbers(self, monkeypatch):
        """Make a deferral as many seconds long as there were deferrals in a row."""
        monkeypatch.setattr(Backoff, "delay_seconds", lambda _self, failures: failures)

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_a_message_that_is_handled_ends_the_row(self, body):
        """The next failure waits as short as the first one."""
        ledger = Ledger(*[UNAVAILABLE] * 3, one_step(status="SUCCEEDED"), UNAVAILABLE)
        handle = handler(ledger).handle
        assert [_delay(handle(message(body))) for _ in range(3)] == [1, 2, 3]
        assert isinstance(handle(message(body)), Ack)
        assert _delay(handle(message(body))) == 1

    def test_worked_steps_end_the_row_too(self):
        """A worked step shows that the backends answer."""
        pipeline = Pipeline(*[UNAVAILABLE] * 2, OutcomeKind.SUCCEEDED, UNAVAILABLE)
        handle = handler(Ledger(one_step()), pipeline).handle
        assert [_delay(handle(message())) for _ in range(2)] == [1, 2]
        assert isinstance(handle(message()), Ack)
        assert _delay(handle(message())) == 1

    @pytest.mark.parametrize("body", [None, RUN_ONLY])
    def test_contentions_and_outages_are_one_row(self, body):
        """A deferral does not end the row, whatever its reason is."""
        pipeline = Pipeline(*[OutcomeKind.CLAIM_LOST] * MAX_LOST_STEPS * 2, UNAVAILABLE)
        handle = handler(Ledger(one_step()), pipeline).handle
        dispositions = [handle(message(body)) for _ in range(3)]
        assert [found.reason for found in dispositions] == ["contended"] * 2 + ["firestore_unavailable"]
        assert [_delay(found) for found in dispositions] == [1, 2, 3]


def _delay(disposition):
    assert isinstance(disposition, Defer)
    return disposition.delay_seconds
