"""Simultaneous callers of one key share one call."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.ledger.ledger_process import until
from worker_chart_export.concurrency.single_flight import SingleFlight

BOTH = pytest.mark.parametrize("fresh", [False, True], ids=["joins", "fresh"])


class Backend:
    """A backend that counts calls. Each waits until the test releases it, and returns its number."""

    def __init__(self):
        self.started, self._go = [], threading.Semaphore(0)

    def call(self, key):
        """Run one call; it fails for the key `bad`."""
        self.started.append(key)
        number = len(self.started)
        assert self._go.acquire(timeout=20)
        if key == "bad":
            raise LookupError(number)
        return number

    def release(self, calls=1):
        """Let this number of calls end."""
        self._go.release(calls)


@pytest.fixture
def backend():
    """Return a backend whose calls all wait."""
    return Backend()


@pytest.fixture
def executor():
    """Return threads for the callers."""
    with ThreadPoolExecutor(16) as threads:
        yield threads


def _ask(executor, flights, key, callers=1):
    """Start callers and return their futures."""
    return [executor.submit(flights.get, key) for _ in range(callers)]


class Watched(SingleFlight):
    """A single flight that counts waiting callers, so that a test knows when one has arrived."""

    def waits(self, future_of, key, callers):
        """Return whether this number of callers waits; one in `result` holds the future's condition."""
        future = future_of.get(key)
        return future is not None and len(future._condition._waiters) >= callers


def test_callers_join_a_call_that_runs(backend, executor):
    """Callers that arrive during a call share its result."""
    flights = Watched(backend.call)
    first = _ask(executor, flights, "a")
    until(lambda: backend.started)
    others = _ask(executor, flights, "a", callers=8)
    until(lambda: flights.waits(flights._running, "a", 8))
    backend.release()
    assert [future.result(20) for future in first + others] == [1] * 9
    assert backend.started == ["a"]


def test_a_fresh_result_comes_from_a_later_call(backend, executor):
    """With `fresh`, callers that arrive during a call share the next one."""
    flights = Watched(backend.call, fresh=True)
    first = _ask(executor, flights, "a")
    until(lambda: backend.started)
    others = _ask(executor, flights, "a", callers=8)
    until(lambda: flights.waits(flights._next, "a", 7))  # one of the eight makes the call
    assert backend.started == ["a"]
    backend.release()
    assert first[0].result(20) == 1
    until(lambda: len(backend.started) == 2)
    late = _ask(executor, flights, "a")
    until(lambda: "a" in flights._next)
    backend.release(2)
    assert [future.result(20) for future in others] == [2] * 8
    assert late[0].result(20) == 3


@BOTH
def test_an_error_goes_to_each_caller(backend, executor, fresh):
    """An error is raised in each caller, and the next caller starts a new call."""
    flights = SingleFlight(backend.call, fresh=fresh)
    futures = _ask(executor, flights, "bad", callers=3)
    backend.release(3)
    assert {type(future.exception(20)) for future in futures} == {LookupError}
    backend.release()
    before = len(backend.started)
    with pytest.raises(LookupError):
        flights.get("bad")
    assert len(backend.started) == before + 1


@BOTH
def test_keys_do_not_wait_for_each_other(backend, executor, fresh):
    """Each key has its own call."""
    flights = SingleFlight(backend.call, fresh=fresh)
    futures = _ask(executor, flights, "a") + _ask(executor, flights, "b")
    until(lambda: len(backend.started) == 2)
    backend.release(2)
    assert {future.result(20) for future in futures} == {1, 2}


@BOTH
def test_nothing_is_kept(backend, fresh):
    """Neither results nor keys are kept after a call."""
    flights = SingleFlight(backend.call, fresh=fresh)
    backend.release(2)
    assert [flights.get("a"), flights.get("a")] == [1, 2]
    assert (flights._running, flights._next) == ({}, {})
