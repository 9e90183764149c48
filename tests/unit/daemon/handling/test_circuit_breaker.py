"""The circuit breaker: when it opens, which threads wait, and what closes it again."""

from __future__ import annotations

import queue
import threading
from contextlib import ExitStack

import pytest

from daemon.handling.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from worker_chart_export.errors import BackendRefused, BackendUnavailable

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
    for _ in range(times):
        failing.record_failure(backend)


def _events(lines, name):
    return [line for line in lines() if line["event"] == name]


def test_a_closed_circuit_breaker_lets_threads_pass(silent):
    """A closed circuit breaker lets threads pass."""
    assert silent.wait_until_closed() is True
    assert (silent.is_open, silent.unavailable_backends) == (False, ())


def test_five_failures_in_a_row_open_it(silent, log_lines):
    """Five failures in a row open it, with one log line that names the backend."""
    _fail(silent, times=4)
    assert not silent.is_open
    silent.record_failure("firestore")
    assert (silent.is_open, silent.unavailable_backends) == (True, ("firestore",))
    _fail(silent, times=20)
    (line,) = _events(log_lines, "intake_paused")
    assert (line["severity"], line["backend"], line["failures"]) == ("WARNING", "firestore", 5)


def test_a_success_in_between_resets_the_count(silent):
    """A success in between resets the count."""
    for _ in range(3):
        _fail(silent, times=4)
        silent.record_success("firestore")
    assert not silent.is_open


def test_each_backend_has_a_count_of_its_own(silent):
    """Each backend has its own count."""
    for _ in range(4):
        silent.record_failure("firestore")
        silent.record_failure("storage")
        silent.record_success("storage")
    assert not silent.is_open
    silent.record_failure("firestore")
    assert silent.unavailable_backends == ("firestore",)


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
    assert [answer.get(timeout=10) for answer in answers] == [True, True, True]
    assert not breaker.is_open


def test_closing_logs_how_long_it_was_open(breaker, backends, waiting, log_lines):
    """Closing logs how long it was open."""
    _fail(breaker)
    backends["firestore"].answers.put(None)
    assert waiting(breaker).get(timeout=10)
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
    assert waiting(breaker).get(timeout=10) is True


def test_an_error_in_a_probe_closes_the_circuit_breaker(breaker, backends, waiting, log_lines):
    """An unexpected error in a probe closes the circuit breaker and is logged as our own."""
    _fail(breaker)
    backends["firestore"].answers.put(AttributeError("mistake"))
    assert waiting(breaker).get(timeout=10) is True
    (line,) = _events(log_lines, "internal_error")
    assert "AttributeError: mistake" in line["exception"]


def test_probing_continues_after_an_error(breaker, backends, waiting):
    """The probing thread continues after an unexpected error."""
    for _ in range(2):
        _fail(breaker)
        backends["firestore"].answers.put(AttributeError("mistake"))
        assert waiting(breaker).get(timeout=10) is True


def test_it_closes_only_when_both_backends_are_available(breaker, backends, waiting, log_lines):
    """When both backends fail it closes only when both are available, with one log line."""
    _fail(breaker, "firestore")
    _fail(breaker, "storage")
    assert breaker.unavailable_backends == ("firestore", "storage")
    answer = waiting(breaker)
    backends["firestore"].answers.put(None)
    backends["storage"].answers.put(BackendUnavailable("storage", "x"))
    for _ in range(2):  # the second probe of the storage comes after Firestore was found back
        backends["storage"].asked.get(timeout=10)
    assert (breaker.unavailable_backends, answer.empty()) == (("storage",), True)
    assert _events(log_lines, "intake_resumed") == []
    backends["storage"].answers.put(None)
    assert answer.get(timeout=10) is True
    assert [line["backend"] for line in _events(log_lines, "intake_paused")] == ["firestore", "storage"]


def test_after_closing_five_new_failures_open_it(breaker, backends, waiting):
    """After it closed, five new failures are needed to open it."""
    _fail(breaker, times=12)
    backends["firestore"].answers.put(None)
    assert waiting(breaker).get(timeout=10)
    _fail(breaker, times=4)
    assert not breaker.is_open
    breaker.record_failure("firestore")
    assert breaker.is_open


def test_a_stop_wakes_all_waiting_threads(silent, waiting):
    """A stop wakes all waiting threads and returns that the messages must be nacked."""
    _fail(silent)
    answers = [waiting(silent) for _ in range(3)]
    silent.stop()
    assert [answer.get(timeout=10) for answer in answers] == [False, False, False]
    assert silent.wait_until_closed() is False


def test_no_thread_passes_in_a_stopping_worker(silent):
    """In a stopping worker no thread passes, although all backends are available."""
    silent.stop()
    silent.stop()
    assert silent.wait_until_closed() is False


def test_a_stop_ends_the_probing_thread(backends):
    """A stop ends the probing thread at once."""
    with CircuitBreaker(probes=backends, probe_seconds=NEVER) as made:
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
