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
    """Answers a probe as the test says, and notes the probes."""

    def __init__(self):
        self.answers = queue.SimpleQueue()
        self.asked = queue.SimpleQueue()

    def __call__(self):
        """A probe."""
        self.asked.put(None)
        answer = self.answers.get(timeout=10)
        if answer is not None:
            raise answer


@pytest.fixture
def backends():
    """The two that a worker can't do without."""
    return {"firestore": Backend(), "storage": Backend()}


@pytest.fixture
def breaker(backends):
    """A breaker whose probing thread probes often."""
    with CircuitBreaker(probes=backends, probe_seconds=0.01) as made:
        yield made
        made.stop()
        for backend in backends.values():  # a probe under way waits for an answer
            backend.answers.put(None)
    made._thread.join(10)
    assert not made._thread.is_alive()


@pytest.fixture
def silent(backends):
    """A breaker that never probes."""
    return CircuitBreaker(probes=backends, probe_seconds=NEVER)


@pytest.fixture
def waiting():
    """Starts a thread that waits at a breaker; returns a queue that gets the result of the wait."""
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


def test_a_closed_breaker_holds_no_thread(silent):
    """That is the normal case."""
    assert silent.wait_until_closed() is True
    assert (silent.is_open, silent.unavailable_backends) == (False, ())


def test_five_failures_in_a_row_open_it(silent, log_lines):
    """Four do not. One line names the backend; further failures log nothing."""
    _fail(silent, times=4)
    assert not silent.is_open
    silent.record_failure("firestore")
    assert (silent.is_open, silent.unavailable_backends) == (True, ("firestore",))
    _fail(silent, times=20)
    (line,) = _events(log_lines, "intake_paused")
    assert (line["severity"], line["backend"], line["failures"]) == ("WARNING", "firestore", 5)


def test_a_success_in_between_starts_the_count_anew(silent):
    """Single failures happen on every day."""
    for _ in range(3):
        _fail(silent, times=4)
        silent.record_success("firestore")
    assert not silent.is_open


def test_each_backend_has_a_count_of_its_own(silent):
    """A success of Cloud Storage does not reset the count of Firestore."""
    for _ in range(4):
        silent.record_failure("firestore")
        silent.record_failure("storage")
        silent.record_success("storage")
    assert not silent.is_open
    silent.record_failure("firestore")
    assert silent.unavailable_backends == ("firestore",)


def test_a_success_of_a_step_under_way_does_not_close_it(silent):
    """Only a probe does: calls that began before the outage may still succeed."""
    _fail(silent)
    silent.record_success("firestore")
    assert silent.is_open


def test_a_backend_without_a_probe_opens_nothing(silent):
    """Nothing would close the breaker again."""
    _fail(silent, "pubsub", times=20)
    assert not silent.is_open


def test_threads_wait_at_an_open_breaker_until_the_backend_answers(breaker, backends, waiting, log_lines):
    """All of them wait, over several probes."""
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


def test_its_closing_is_logged_with_the_time_it_was_open(breaker, backends, waiting, log_lines):
    """So the log shows the start and the end of an outage."""
    _fail(breaker)
    backends["firestore"].answers.put(None)
    assert waiting(breaker).get(timeout=10)
    breaker.stop()
    backends["firestore"].answers.put(None)
    breaker._thread.join(10)
    (line,) = _events(log_lines, "intake_resumed")
    assert (line["severity"], line["backend"]) == ("INFO", "firestore")
    assert 0 < line["pausedSeconds"] < 10


def test_a_backend_that_refuses_answers(breaker, backends, waiting):
    """Each message meets the refusal by itself."""
    _fail(breaker)
    backends["firestore"].answers.put(BackendRefused("firestore", "x"))
    assert waiting(breaker).get(timeout=10) is True


def test_a_defect_in_a_probe_does_not_keep_it_open(breaker, backends, waiting, log_lines):
    """It is logged as an internal error."""
    _fail(breaker)
    backends["firestore"].answers.put(AttributeError("mistake"))
    assert waiting(breaker).get(timeout=10) is True
    (line,) = _events(log_lines, "internal_error")
    assert "AttributeError: mistake" in line["exception"]


def test_probing_continues_after_a_defect(breaker, backends, waiting):
    """The thread lives."""
    for _ in range(2):
        _fail(breaker)
        backends["firestore"].answers.put(AttributeError("mistake"))
        assert waiting(breaker).get(timeout=10) is True


def test_with_both_unavailable_it_closes_only_when_both_answer(breaker, backends, waiting, log_lines):
    """One line reports that."""
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


def test_after_it_closes_it_takes_five_failures_again(breaker, backends, waiting):
    """Earlier failures do not count."""
    _fail(breaker, times=12)
    backends["firestore"].answers.put(None)
    assert waiting(breaker).get(timeout=10)
    _fail(breaker, times=4)
    assert not breaker.is_open
    breaker.record_failure("firestore")
    assert breaker.is_open


def test_a_stop_releases_the_waiting_threads(silent, waiting):
    """Their wait returns False, so they nack their messages."""
    _fail(silent)
    answers = [waiting(silent) for _ in range(3)]
    silent.stop()
    assert [answer.get(timeout=10) for answer in answers] == [False, False, False]
    assert silent.wait_until_closed() is False


def test_no_thread_passes_after_the_stop(silent):
    """Even if all backends answer."""
    silent.stop()
    silent.stop()
    assert silent.wait_until_closed() is False


def test_a_stop_ends_the_probing_thread(backends):
    """It does not wait for the end of its pause."""
    with CircuitBreaker(probes=backends, probe_seconds=NEVER) as made:
        _fail(made)
    made._thread.join(10)
    assert not made._thread.is_alive()


def test_the_probing_thread_ticks_when_idle_and_between_probes(backends):
    """Liveness watches it: a thread that hangs would leave the breaker open for ever."""
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
