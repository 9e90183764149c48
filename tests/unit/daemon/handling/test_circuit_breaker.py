"""The circuit breaker: when it opens, which threads wait, and what closes it again."""

from __future__ import annotations

import math
import queue
import threading
from contextlib import ExitStack

import pytest

from daemon.handling.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from tests.support.fakes import HandClock
from tests.support.metric_counts import value
from worker_chart_export.errors import AccountsExhausted, BackendRefused, BackendUnavailable

NEVER = 3600.0
UNAVAILABLE = BackendUnavailable("firestore", "x")


class Backend:
    """A backend whose probe answers as the test sets, and notes each call."""

    def __init__(self):
        self.answers = queue.SimpleQueue()
        self.asked = queue.SimpleQueue()

    def __call__(self):
        """Answer a probe."""
        self.asked.put(None)
        answer = self.answers.get(timeout=10)
        if answer is not None:
            raise answer


@pytest.fixture
def backends():
    """Return the two backends that a worker needs."""
    return {"firestore": Backend(), "storage": Backend()}


@pytest.fixture
def breaker(backends):
    """Return a circuit breaker whose probing thread runs without pauses."""
    with CircuitBreaker(probes=backends, probe_seconds=0.01) as made:
        yield made
        made.stop()
        for backend in backends.values():  # a probe under way waits for an answer
            backend.answers.put(None)
    made._thread.join(10)
    assert not made._thread.is_alive()


@pytest.fixture
def silent(backends):
    """Return a circuit breaker that is never probed."""
    return CircuitBreaker(probes=backends, probe_seconds=NEVER)


@pytest.fixture
def waiting():
    """Start a thread that waits at a circuit breaker; return a queue with the result of `wait`."""
    with ExitStack() as threads:

        def start(waited_at):
            answer, entered = queue.SimpleQueue(), threading.Event()

            def wait():
                entered.set()
                answer.put(waited_at.wait_until_closed())

            thread = threading.Thread(target=wait)
            thread.start()
            threads.callback(thread.join, 10)
            entered.wait(10)
            return answer

        yield start


def _fail(failing, backend="firestore", times=FAILURES_TO_OPEN):
    with failing._changed:  # the probing thread sees all of them at once
        for _ in range(times):
            failing.record_failure(BackendUnavailable(backend, "x"))


def _events(lines, name):
    return [line for line in lines() if line["event"] == name]


def test_a_closed_circuit_breaker_lets_threads_pass(silent):
    """A closed circuit breaker lets threads pass."""
    assert silent.wait_until_closed() is None
    assert (silent.is_open, silent.pauses) == (False, {})


def test_five_failures_in_a_row_open_it(silent, log_lines):
    """Five failures in a row open it, with one log line that names the backend."""
    _fail(silent, times=4)
    assert not silent.is_open
    silent.record_failure(BackendUnavailable("firestore", "x"))
    assert (silent.is_open, silent.pauses) == (True, {"firestore": "firestore is unavailable: x"})
    _fail(silent, times=20)
    (line,) = _events(log_lines, "intake_paused")
    assert (line["severity"], line["backend"], line["failures"]) == ("WARNING", "firestore", 5)


def test_a_pause_without_a_probe_ends_by_resume(silent, log_lines):
    """Only the pause of that name ends, and a second resume changes nothing."""
    silent.pause("operator", "why", probe=lambda: "why", probe_seconds=math.inf)
    _fail(silent)
    silent.resume("operator")
    assert list(silent.pauses) == ["firestore"]
    silent.resume("operator")
    silent.resume("firestore")
    assert not silent.is_open
    assert len(_events(log_lines, "intake_resumed")) == 1


def test_the_probes_of_many_workers_are_spread(backends, monkeypatch):
    """A probe comes after most of the wait; the pause is shown until it ends."""
    drawn, clock = [], HandClock()
    monkeypatch.setattr(
        "daemon.handling.circuit_breaker.full_jitter_seconds",
        lambda *, low, high: drawn.append((low, high)) or 0.75,
    )
    tested = CircuitBreaker(probes=backends, probe_seconds=NEVER, clock=clock.monotonic)
    tested.pause("storage", "why", probe=lambda: "why", probe_seconds=8)
    assert drawn == [(0.6, 1)]
    assert tested._pauses["storage"].probe_at == clock.monotonic() + 6
    assert value("intake_paused", backend="storage") == 1
    tested.resume("storage")
    assert value("intake_paused", backend="storage") == 0


def test_the_probing_thread_waits_exactly_until_the_next_probe(backends, monkeypatch):
    """It waits for the first of: a suspect, a pause, and the longest wait."""
    monkeypatch.setattr("daemon.handling.circuit_breaker.full_jitter_seconds", lambda *, low, high: high)  # noqa: ARG005
    clock, waits = HandClock(), []
    tested = CircuitBreaker(probes=backends, probe_seconds=60, clock=clock.monotonic)

    def wait(seconds):
        waits.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(tested._changed, "wait", wait)
    assert tested._wait_for_next_probes() == ([], {})
    _fail(tested, times=2)
    assert tested._wait_for_next_probes() == (["firestore"], {})
    assert tested._wait_for_next_probes() == ([], {})
    tested.pause("operator", "why", probe=lambda: "why", probe_seconds=math.inf)
    tested.pause("storage", "why", probe=lambda: "why", probe_seconds=8)
    assert tested._wait_for_next_probes() == ([], {"storage": tested._pauses["storage"]})
    tested._look_again("storage", tested._pauses["storage"])
    assert tested._wait_for_next_probes() == ([], {"storage": tested._pauses["storage"]})
    assert waits == [60, 1, 60, 8, 8]


def test_a_success_in_between_resets_the_count(silent):
    """A success in between resets the count."""
    for _ in range(3):
        _fail(silent, times=4)
        silent.record_success("firestore")
    assert not silent.is_open


def test_each_backend_has_a_count_of_its_own(silent):
    """Each backend has its own count."""
    for _ in range(4):
        silent.record_failure(BackendUnavailable("firestore", "x"))
        silent.record_failure(BackendUnavailable("storage", "x"))
        silent.record_success("storage")
    assert not silent.is_open
    silent.record_failure(BackendUnavailable("firestore", "x"))
    assert list(silent.pauses) == ["firestore"]


def test_a_success_of_a_running_step_does_not_close_it(silent):
    """A success of a running step does not close it; only a probe does."""
    _fail(silent)
    silent.record_success("firestore")
    assert silent.is_open


def test_a_backend_without_a_probe_never_opens_it(silent):
    """A backend without a probe never opens it, because nothing would close it again."""
    _fail(silent, "pubsub", times=20)
    assert not silent.is_open


def test_threads_wait_until_the_backend_is_available(breaker, backends, waiting, log_lines):
    """All threads wait until a probe succeeds."""
    _fail(breaker)
    answers = [waiting(breaker) for _ in range(3)]
    for _ in range(2):
        backends["firestore"].answers.put(UNAVAILABLE)
        backends["firestore"].asked.get(timeout=10)
    backends["firestore"].asked.get(timeout=10)  # the third probe is under way
    assert all(answer.empty() for answer in answers)
    assert _events(log_lines, "intake_resumed") == []
    backends["firestore"].answers.put(None)
    assert [answer.get(timeout=10) for answer in answers] == [None, None, None]
    assert not breaker.is_open


def test_closing_logs_how_long_it_was_open(breaker, backends, waiting, log_lines):
    """Closing logs how long it was open."""
    _fail(breaker)
    backends["firestore"].answers.put(None)
    assert waiting(breaker).get(timeout=10) is None
    breaker.stop()
    backends["firestore"].answers.put(None)
    breaker._thread.join(10)
    (line,) = _events(log_lines, "intake_resumed")
    assert (line["severity"], line["backend"]) == ("INFO", "firestore")
    assert 0 < line["pausedSeconds"] < 10


def test_a_backend_that_refuses_is_available(breaker, backends, waiting):
    """A backend that refuses the probe is available, because it answers."""
    _fail(breaker)
    backends["firestore"].answers.put(BackendRefused("firestore", "x"))
    assert waiting(breaker).get(timeout=10) is None


def test_an_error_in_a_probe_closes_the_circuit_breaker(breaker, backends, waiting, log_lines):
    """An unexpected error in a probe closes the circuit breaker and is logged as our own."""
    _fail(breaker)
    backends["firestore"].answers.put(AttributeError("mistake"))
    assert waiting(breaker).get(timeout=10) is None
    (line,) = _events(log_lines, "internal_error")
    assert "AttributeError: mistake" in line["exception"]


def test_probing_continues_after_an_error(breaker, backends, waiting):
    """The probing thread continues after an unexpected error."""
    for _ in range(2):
        _fail(breaker)
        backends["firestore"].answers.put(AttributeError("mistake"))
        assert waiting(breaker).get(timeout=10) is None


def test_it_closes_only_when_both_backends_are_available(breaker, backends, waiting, log_lines):
    """When both backends fail it closes only when both are available, with one log line."""
    _fail(breaker, "firestore")
    _fail(breaker, "storage")
    assert list(breaker.pauses) == ["firestore", "storage"]
    answer = waiting(breaker)
    backends["firestore"].answers.put(None)
    backends["storage"].answers.put(BackendUnavailable("storage", "x"))
    for _ in range(2):  # the second probe of the storage comes after Firestore was found back
        backends["storage"].asked.get(timeout=10)
    assert (list(breaker.pauses), answer.empty()) == (["storage"], True)
    assert _events(log_lines, "intake_resumed") == []
    backends["storage"].answers.put(None)
    assert answer.get(timeout=10) is None
    assert [line["backend"] for line in _events(log_lines, "intake_paused")] == ["firestore", "storage"]


def test_after_closing_five_new_failures_open_it(breaker, backends, waiting):
    """After it closed, five new failures are needed to open it."""
    _fail(breaker, times=12)
    backends["firestore"].answers.put(None)
    assert waiting(breaker).get(timeout=10) is None
    _fail(breaker, times=4)
    assert not breaker.is_open
    breaker.record_failure(BackendUnavailable("firestore", "x"))
    assert breaker.is_open


def test_one_failure_and_a_failed_probe_open_it(breaker, backends, log_lines):
    """The first failure makes it probe at once; if that fails too, it opens with the reason of the probe."""
    _fail(breaker, times=1)
    backends["firestore"].answers.put(BackendUnavailable("firestore", "connection refused"))
    for _ in range(2):  # the second probe comes when it is open
        backends["firestore"].asked.get(timeout=10)
    assert breaker.pauses == {"firestore": "firestore is unavailable: connection refused"}
    (line,) = _events(log_lines, "intake_paused")
    assert (line["backend"], line["failures"]) == ("firestore", 1)
    assert line["reason"] == "firestore is unavailable: connection refused"


def test_one_failure_of_a_backend_that_answers_leaves_it_closed(breaker, backends):
    """One failure of a backend that answers its probe is no reason for a pause."""
    _fail(breaker, times=1)
    backends["firestore"].answers.put(None)
    backends["firestore"].asked.get(timeout=10)
    _fail(breaker, times=1)  # it is probed again, so the first probe has been judged
    backends["firestore"].asked.get(timeout=10)
    assert not breaker.is_open


def test_a_probe_that_began_before_the_pause_does_not_end_it(breaker, backends):
    """Failures open it although a probe that began before them is answered."""
    _fail(breaker, times=1)
    backends["firestore"].asked.get(timeout=10)
    _fail(breaker, times=4)
    backends["firestore"].answers.put(None)
    backends["firestore"].asked.get(timeout=10)
    assert breaker.is_open


def test_a_pause_for_a_named_reason_lasts_until_its_probe_finds_none(breaker, waiting, log_lines):
    """Anything may pause the intake; its probe renews the reason, and ends the pause with None."""
    answers, asked = queue.SimpleQueue(), queue.SimpleQueue()

    def probe():
        asked.put(None)
        return answers.get(timeout=10)

    breaker.pause("accounts", "no account has calls left", probe=probe, probe_seconds=0.02)
    breaker.pause("accounts", "no account has calls left today", probe=probe)
    answer = waiting(breaker)
    assert breaker.pauses == {"accounts": "no account has calls left today"}
    answers.put("only a disabled account is left")
    for _ in range(2):
        asked.get(timeout=10)
    assert (breaker.pauses, answer.empty()) == ({"accounts": "only a disabled account is left"}, True)
    answers.put(None)
    assert answer.get(timeout=10) is None
    (line,) = _events(log_lines, "intake_paused")
    assert (line["backend"], line["reason"]) == ("accounts", "no account has calls left")


@pytest.mark.parametrize("is_for_all", [True, False])
def test_one_lack_of_accounts_opens_it_if_it_is_for_all_charts(is_for_all):
    """One step without an account pauses the intake, unless other charts can still be made."""
    breaker = CircuitBreaker(probes={"accounts": lambda: None})
    for _ in range(1 if is_for_all else 2 * FAILURES_TO_OPEN):
        breaker.record_failure(AccountsExhausted("none is left", is_for_all=is_for_all))
    assert breaker.pauses == ({"accounts": "none is left"} if is_for_all else {})


def test_each_pause_is_probed_at_its_own_pace(breaker, backends):
    """A pause that is probed rarely does not delay the probes of another one."""
    rare = queue.SimpleQueue()
    breaker.pause("accounts", "x", probe=lambda: rare.put(None) or "x", probe_seconds=NEVER)
    _fail(breaker)
    for _ in range(5):
        backends["firestore"].answers.put(UNAVAILABLE)
        backends["firestore"].asked.get(timeout=10)
    assert rare.empty()


def test_waiting_messages_are_given_back_until_the_pause_ends(breaker, backends, waiting):
    """Waiting threads, and those that come later, nack their messages until the pause ends."""
    breaker.give_back()
    assert breaker.wait_until_closed() is None  # nothing is paused
    _fail(breaker)
    answer = waiting(breaker)
    breaker.give_back()
    assert answer.get(timeout=10) == "paused"
    assert breaker.wait_until_closed() == "paused"
    backends["firestore"].answers.put(None)
    while breaker.is_open:
        backends["firestore"].asked.get(timeout=10)
        breaker._thread.join(0.05)
    assert breaker.wait_until_closed() is None
    _fail(breaker)
    second = waiting(breaker)
    breaker._thread.join(0.05)
    assert second.empty()  # the next pause holds its messages again
    breaker.give_back()
    assert second.get(timeout=10) == "paused"


def test_it_reports_for_how_long_it_is_open(backends):
    """The time of a pause counts from the first reason on."""
    clock = HandClock()
    tested = CircuitBreaker(probes=backends, probe_seconds=NEVER, clock=clock.monotonic)
    clock.advance(5)
    assert tested.open_seconds() == 0
    _fail(tested)
    clock.advance(7)
    _fail(tested, "storage")
    clock.advance(2)
    assert tested.open_seconds() == 9


def test_a_stop_wakes_all_waiting_threads(silent, waiting):
    """A stop wakes all waiting threads and returns that the messages must be nacked."""
    _fail(silent)
    answers = [waiting(silent) for _ in range(3)]
    silent.stop()
    assert [answer.get(timeout=10) for answer in answers] == ["shutdown"] * 3
    assert silent.wait_until_closed() == "shutdown"


def test_no_thread_passes_in_a_stopping_worker(silent):
    """In a stopping worker no thread passes, although all backends are available."""
    silent.stop()
    silent.stop()
    assert silent.wait_until_closed() == "shutdown"


def test_a_stop_ends_the_probing_thread(backends):
    """A stop ends the probing thread at once; one that hangs in a probe does not hold the process."""
    with CircuitBreaker(probes=backends, probe_seconds=NEVER) as made:
        assert made._thread.daemon
        _fail(made)
    made._thread.join(10)
    assert not made._thread.is_alive()


def test_the_probing_thread_ticks_while_idle_and_while_probing(backends):
    """The probing thread reports that it is alive while idle and while probing."""
    ticks = queue.SimpleQueue()
    with CircuitBreaker(probes=backends, probe_seconds=0.01, on_tick=lambda: ticks.put(None)) as made:
        for _ in range(3):
            ticks.get(timeout=10)
        _fail(made)
        for _ in range(3):
            backends["firestore"].answers.put(UNAVAILABLE)
            backends["firestore"].asked.get(timeout=10)
            ticks.get(timeout=10)
        made.stop()
        backends["firestore"].answers.put(None)
    made._thread.join(10)


def test_a_success_after_a_failure_makes_the_probe_unnecessary(breaker, backends):
    """A backend that answers within a second of its failure is not probed."""
    _fail(breaker, times=1)
    breaker.record_success("firestore")
    breaker.probe_now("storage")
    backends["storage"].answers.put(None)
    backends["storage"].asked.get(timeout=10)
    breaker._thread.join(1.2)
    assert backends["firestore"].asked.empty()


def test_a_probe_can_be_asked_for_before_any_failure(breaker, backends):
    """A backend that fails a probe which was asked for opens it without a failure before."""
    breaker.probe_now("storage")
    backends["storage"].answers.put(BackendUnavailable("storage", "x"))
    for _ in range(2):
        backends["storage"].asked.get(timeout=10)
    assert breaker.pauses == {"storage": "storage is unavailable: x"}
