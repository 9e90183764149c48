"""The wait of the main thread."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from daemon.lifecycle import stoppable_wait
from daemon.lifecycle.stoppable_wait import StoppableWait, StopRequested


def test_a_true_condition_returns_at_once():
    """A condition that is true already returns at once, even without time."""
    assert StoppableWait().wait_until(lambda: True, 0)


def test_a_wait_has_an_end():
    """A wait ends at its limit and returns False."""
    started = time.monotonic()
    assert not StoppableWait().wait_until(lambda: False, 0.05)
    assert 0.05 <= time.monotonic() - started < 5


def test_a_wake_makes_it_check_again_at_once():
    """A wake checks the condition at once and not only at the next tick."""
    waiter, happened = StoppableWait(), threading.Event()
    checked = threading.Event()

    def holds():
        checked.set()
        return happened.is_set()

    def change():
        checked.wait(5)
        happened.set()
        waiter.wake()

    thread = threading.Thread(target=change)
    thread.start()
    started = time.monotonic()
    assert waiter.wait_until(holds, 60)
    assert time.monotonic() - started < 0.9
    thread.join()


def test_a_change_between_the_check_and_the_wait_is_not_missed():
    """A change between the check and the wait is not missed, because the wake is kept."""
    waiter, checks = StoppableWait(), []

    def holds():
        checks.append(None)
        if len(checks) == 1:
            waiter.wake()
        return len(checks) == 2

    started = time.monotonic()
    assert waiter.wait_until(holds, 60)
    assert time.monotonic() - started < 0.9


def test_a_request_to_stop_ends_every_wait_at_once():
    """A stop request ends the current wait and all later ones at once."""
    waiter = StoppableWait()
    thread = threading.Timer(0.05, waiter.request_stop, ("signal SIGTERM",))
    thread.start()
    started = time.monotonic()
    with pytest.raises(StopRequested, match=r"^signal SIGTERM$"):
        waiter.wait_until(lambda: False, 60)
    assert time.monotonic() - started < 0.9
    with pytest.raises(StopRequested):
        waiter.wait_until(lambda: True, 60)
    with pytest.raises(StopRequested):
        waiter.sleep(0)
    thread.join()


def test_the_first_request_counts():
    """The first stop request counts: the drain's time starts with it."""
    waiter, before = StoppableWait(), time.monotonic()
    waiter.request_stop("first")
    after = time.monotonic()
    waiter.request_stop("second")
    with pytest.raises(StopRequested) as caught:
        waiter.sleep(60)
    assert caught.value.reason == "first"
    assert before <= caught.value.at <= after


def test_it_ticks_while_it_waits(monkeypatch):
    """The wait ticks at least once a second and at each check; here more often, as a busy machine is late."""
    assert stoppable_wait.TICK_SECONDS <= 1
    monkeypatch.setattr(stoppable_wait, "TICK_SECONDS", 0.2)
    ticks = []
    waiter = StoppableWait(on_tick=lambda: ticks.append(time.monotonic()))
    waiter.sleep(1.5)
    assert len(ticks) >= 3
    assert max(later - earlier for earlier, later in itertools.pairwise(ticks)) < 1.4


def test_work_in_another_thread_is_waited_for():
    """Work in another thread is waited for, and its result or error is passed on."""
    assert StoppableWait().wait_for(lambda: threading.current_thread().name, name="elsewhere") == "elsewhere"
    with pytest.raises(ZeroDivisionError):
        StoppableWait().wait_for(lambda: 1 / 0, name="elsewhere")


def test_a_stop_does_not_wait_for_the_work():
    """A stop does not wait for the work in another thread."""
    waiter, end = StoppableWait(), threading.Event()

    def hang():
        waiter.request_stop("enough")
        end.wait(10)

    with pytest.raises(StopRequested, match="enough"):
        waiter.wait_for(hang, name="hanging")
    end.set()
