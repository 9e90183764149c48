"""The time a step may take, and how it is stopped."""

from __future__ import annotations

import threading
import time

import pytest

from tests.support.fakes import HandClock, scope_of
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import Interrupted, StepTimedOut

STOPPED = Interrupted("stopped")
LOST = Interrupted("lease lost")


@pytest.fixture
def clock():
    """A clock moved by the test."""
    return HandClock()


def test_time_left_is_work_allowed(clock):
    """Up to the last moment."""
    scope = CancelScope(seconds=10, clock=clock)
    clock.advance(9.9)
    scope.check()
    assert scope.remaining_seconds() == pytest.approx(0.1)


def test_time_used_up_is_a_timeout(clock):
    """From the deadline on, and never less than nothing is left."""
    scope = CancelScope(seconds=10, clock=clock)
    clock.advance(25)
    assert scope.remaining_seconds() == 0.0
    with pytest.raises(StepTimedOut):
        scope.check()


def test_time_used_up_is_no_stop(clock):
    """The manifest is still written in the reserve."""
    scope = CancelScope(seconds=1, clock=clock)
    clock.advance(2)
    scope.check_stopped()


def test_a_stopped_budget_raises_what_it_was_stopped_with(clock):
    """And has no time left, so that retries end."""
    scope = CancelScope(seconds=10, clock=clock)
    scope.stop(STOPPED)
    assert scope.remaining_seconds() == 0.0
    for ask in (scope.check, scope.check_stopped, lambda: scope.sleep(1)):
        with pytest.raises(Interrupted, match=r"stopped"):
            ask()


def test_the_first_stop_stays(clock):
    """A later reason does not hide the first."""
    scope = CancelScope(seconds=10, clock=clock)
    scope.stop(STOPPED)
    scope.stop(StepTimedOut("late"))
    with pytest.raises(Interrupted):
        scope.check()


def test_a_child_may_end_earlier(clock):
    """Its time is its own."""
    whole = CancelScope(seconds=10, clock=clock)
    child = whole.child(6)
    clock.advance(7)
    assert (child.remaining_seconds(), whole.remaining_seconds()) == (0.0, pytest.approx(3))


def test_a_child_of_less_than_no_time_has_none(clock):
    """Not a negative one."""
    child = CancelScope(seconds=3, clock=clock).child(-1)
    assert child.remaining_seconds() == 0.0
    with pytest.raises(StepTimedOut):
        child.check()


@pytest.mark.parametrize("stopped_first", [True, False])
def test_a_child_stops_with_its_parent(clock, stopped_first):
    """Also when the parent was stopped before the child was made."""
    whole = CancelScope(seconds=10, clock=clock)
    if stopped_first:
        whole.stop(STOPPED)
    child = whole.child(9)
    whole.stop(STOPPED)
    with pytest.raises(Interrupted):
        child.check()


def test_the_parent_goes_on_when_a_child_is_stopped(clock):
    """Charts out of time leave the manifest its time."""
    whole = CancelScope(seconds=10, clock=clock)
    whole.child(9).stop(StepTimedOut("charts"))
    whole.check()


def test_callbacks_hear_of_a_stop_once(clock):
    """Those added before and after it."""
    scope, errors = CancelScope(seconds=10, clock=clock), []
    scope.on_stop(errors.append)
    scope.stop(STOPPED)
    scope.stop(STOPPED)
    scope.on_stop(errors.append)
    assert errors == [STOPPED, STOPPED]


def test_a_callback_for_a_while_hears_of_stops_then_alone(clock):
    """So that a long step doesn't gather one for each of its calls."""
    scope, errors, longer = CancelScope(seconds=10, clock=clock), [], []
    with scope.while_running(longer.append):
        with scope.while_running(errors.append):
            pass
        assert scope._on_stop == [longer.append]
        scope.stop(STOPPED)
    assert (errors, longer) == ([], [STOPPED])


def test_a_callback_for_a_while_hears_of_an_earlier_stop(clock):
    """At once, so that what it would stop never starts to wait."""
    scope, errors = CancelScope(seconds=10, clock=clock), []
    scope.stop(STOPPED)
    with scope.while_running(errors.append):
        assert errors == [STOPPED]


class TestGuard:
    """Checks from outside that stop the work, such as a lost lease."""

    @pytest.fixture
    def guarded(self, clock):
        """A scope with a guard that raises after 5 seconds of the clock."""
        scope = CancelScope(seconds=10, clock=clock)
        until = clock.monotonic() + 5

        def check() -> None:
            if clock.monotonic() >= until:
                raise LOST

        scope.guard(check)
        return scope

    @pytest.mark.parametrize("ask", [CancelScope.check, CancelScope.check_stopped, lambda b: b.sleep(0)])
    def test_a_guard_is_asked_every_time(self, guarded, clock, ask):
        """By whatever asks whether the work may go on."""
        ask(guarded)
        clock.advance(5)
        for _ in range(2):
            with pytest.raises(Interrupted, match=r"lease lost"):
                ask(guarded)

    @pytest.mark.parametrize("seconds", [9, 60])
    def test_a_child_has_its_guards(self, guarded, clock, seconds):
        """Their errors stop the parent too."""
        scope = guarded.child(seconds)
        scope.check()
        clock.advance(5)
        with pytest.raises(Interrupted, match=r"lease lost"):
            scope.check()
        assert (guarded.remaining_seconds(), scope.remaining_seconds()) == (0.0, 0.0)

    def test_a_guard_added_later_counts_for_a_child(self, clock):
        """The child calls the checks of its parent."""
        whole = CancelScope(seconds=10, clock=clock)
        child = whole.child(9)
        whole.guard(lambda: (_ for _ in ()).throw(LOST))
        with pytest.raises(Interrupted, match=r"lease lost"):
            child.check()

    def test_what_a_guard_raises_stops_the_step(self, guarded, clock):
        """So that the other threads wake; the guard is not needed any more."""
        errors = []
        guarded.on_stop(errors.append)
        clock.advance(5)
        with pytest.raises(Interrupted):
            guarded.check()
        clock.advance(-5)
        with pytest.raises(Interrupted, match=r"lease lost"):
            guarded.check()
        assert errors == [LOST]

    def test_a_stop_comes_before_the_guards(self, guarded, clock):
        """The first reason stays."""
        clock.advance(5)
        guarded.stop(STOPPED)
        with pytest.raises(Interrupted, match=r"stopped"):
            guarded.check()


def test_a_child_may_end_later(clock):
    """It still stops with its parent."""
    scope = CancelScope(seconds=1, clock=clock)
    longer = scope.child(10)
    clock.advance(2)
    longer.check()
    scope.stop(STOPPED)
    with pytest.raises(Interrupted):
        longer.check()


def test_a_stop_wakes_every_sleeper():
    """At once, each with the error."""
    scope, asleep, woken = scope_of(60), threading.Barrier(4), []

    def sleep() -> None:
        asleep.wait()
        try:
            scope.sleep(60)
        except Interrupted as error:
            woken.append(error)

    threads = [threading.Thread(target=sleep) for _ in range(3)]
    for thread in threads:
        thread.start()
    asleep.wait()
    scope.stop(STOPPED)
    for thread in threads:
        thread.join(5)
    assert woken == [STOPPED] * 3


def test_a_sleep_ends_at_the_deadline():
    """With a timeout, however long it was to be."""
    scope, started = scope_of(0.05), time.monotonic()
    with pytest.raises(StepTimedOut):
        scope.sleep(60)
    assert time.monotonic() - started < 5


def test_a_short_sleep_returns(clock):
    """When there is time left after it."""
    assert CancelScope(seconds=10, clock=clock).sleep(0.001) is None
