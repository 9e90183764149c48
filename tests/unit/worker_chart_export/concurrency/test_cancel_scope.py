"""The time limit and the stop of a step."""

from __future__ import annotations

import threading
import time

import pytest

from tests.support.charts.chart_img_samples import until
from tests.support.fakes import HandClock, scope_of, suspend_machine
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import Interrupted, StepTimedOut

STOPPED = Interrupted("stopped")
LOST = Interrupted("lease lost")


@pytest.fixture
def clock():
    """Return a clock that the test moves."""
    return HandClock()


def test_time_left_is_work_allowed(clock):
    """`check` passes while time is left."""
    scope = CancelScope(seconds=10, clock=clock)
    clock.advance(9.9)
    scope.check()
    assert scope.remaining_seconds() == pytest.approx(0.1)


def test_a_suspend_of_the_machine_uses_up_time(monkeypatch):
    """The time of a suspend counts: the message and the lease of the step did not wait."""
    scope = scope_of(300)
    suspend_machine(monkeypatch, 301)
    with pytest.raises(StepTimedOut):
        scope.check()


def test_time_used_up_is_a_timeout(clock):
    """After the deadline `check` raises a timeout, and the time left is 0."""
    scope = CancelScope(seconds=10, clock=clock)
    clock.advance(25)
    assert scope.remaining_seconds() == 0.0
    with pytest.raises(StepTimedOut):
        scope.check()


def test_time_used_up_is_no_stop(clock):
    """The end of the work time is no stop: the manifest is still written in the reserve."""
    scope = CancelScope(seconds=1, clock=clock)
    clock.advance(2)
    scope.check_stopped()


def test_a_stopped_budget_raises_what_it_was_stopped_with(clock):
    """A stopped scope raises its stop error and has no time left, so that retries end."""
    scope = CancelScope(seconds=10, clock=clock)
    scope.stop(STOPPED)
    assert scope.remaining_seconds() == 0.0
    for ask in (scope.check, scope.check_stopped, lambda: scope.sleep(1)):
        with pytest.raises(Interrupted, match=r"stopped"):
            ask()


def test_the_first_stop_stays(clock):
    """The first stop error stays; a later one does not replace it."""
    scope = CancelScope(seconds=10, clock=clock)
    scope.stop(STOPPED)
    scope.stop(StepTimedOut("late"))
    with pytest.raises(Interrupted):
        scope.check()


def test_a_child_may_end_earlier(clock):
    """A child has its own, earlier deadline."""
    whole = CancelScope(seconds=10, clock=clock)
    child = whole.child(6)
    clock.advance(7)
    assert (child.remaining_seconds(), whole.remaining_seconds()) == (0.0, pytest.approx(3))


def test_a_child_of_less_than_no_time_has_none(clock):
    """A child with a negative limit has no time left."""
    child = CancelScope(seconds=3, clock=clock).child(-1)
    assert child.remaining_seconds() == 0.0
    with pytest.raises(StepTimedOut):
        child.check()


@pytest.mark.parametrize("stopped_first", [True, False])
def test_a_child_stops_with_its_parent(clock, stopped_first):
    """A child is stopped with its parent, also when the parent was stopped before."""
    whole = CancelScope(seconds=10, clock=clock)
    if stopped_first:
        whole.stop(STOPPED)
    child = whole.child(9)
    whole.stop(STOPPED)
    with pytest.raises(Interrupted):
        child.check()


def test_the_parent_goes_on_when_a_child_is_stopped(clock):
    """A parent continues when its child is stopped, so the manifest still has its time."""
    whole = CancelScope(seconds=10, clock=clock)
    whole.child(9).stop(StepTimedOut("charts"))
    whole.check()


def test_stop_callbacks_run_once(clock):
    """Each stop callback runs once, whether it was added before or after the stop."""
    scope, errors = CancelScope(seconds=10, clock=clock), []
    scope.on_stop(errors.append)
    scope.stop(STOPPED)
    scope.stop(STOPPED)
    scope.on_stop(errors.append)
    assert errors == [STOPPED, STOPPED]


def test_a_temporary_callback_is_removed(clock):
    """A temporary callback is removed after its block, so that a long step does not collect them."""
    scope, errors, longer = CancelScope(seconds=10, clock=clock), [], []
    with scope.while_running(longer.append):
        with scope.while_running(errors.append):
            pass
        assert scope._on_stop == [longer.append]
        scope.stop(STOPPED)
    assert (errors, longer) == ([], [STOPPED])


def test_a_temporary_callback_runs_after_an_earlier_stop(clock):
    """A temporary callback runs at once after an earlier stop, so that its call never starts to wait."""
    scope, errors = CancelScope(seconds=10, clock=clock), []
    scope.stop(STOPPED)
    with scope.while_running(errors.append):
        assert errors == [STOPPED]


class TestGuard:
    """Guards: checks from outside that stop the work, such as a lost lease."""

    @pytest.fixture
    def guarded(self, clock):
        """Return a scope with a guard that raises after 5 seconds of the clock."""
        scope = CancelScope(seconds=10, clock=clock)
        until = clock.monotonic() + 5

        def check() -> None:
            if clock.monotonic() >= until:
                raise LOST

        scope.guard(check)
        return scope

    @pytest.mark.parametrize("ask", [CancelScope.check, CancelScope.check_stopped, lambda b: b.sleep(0)])
    def test_every_check_calls_the_guards(self, guarded, clock, ask):
        """Every check calls the guards."""
        ask(guarded)
        clock.advance(5)
        for _ in range(2):
            with pytest.raises(Interrupted, match=r"lease lost"):
                ask(guarded)

    @pytest.mark.parametrize("seconds", [9, 60])
    def test_a_child_has_its_guards(self, guarded, clock, seconds):
        """A child calls its parent's guards, and their errors stop the parent too."""
        scope = guarded.child(seconds)
        scope.check()
        clock.advance(5)
        with pytest.raises(Interrupted, match=r"lease lost"):
            scope.check()
        assert (guarded.remaining_seconds(), scope.remaining_seconds()) == (0.0, 0.0)

    def test_a_guard_added_later_counts_for_a_child(self, clock):
        """A child calls a guard that was added to its parent later."""
        whole = CancelScope(seconds=10, clock=clock)
        child = whole.child(9)
        whole.guard(lambda: (_ for _ in ()).throw(LOST))
        with pytest.raises(Interrupted, match=r"lease lost"):
            child.check()

    def test_what_a_guard_raises_stops_the_step(self, guarded, clock):
        """A guard's error stops the step, so that other threads wake, and removes the guard."""
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
        """After a stop the guards are not called, and the first error stays."""
        clock.advance(5)
        guarded.stop(STOPPED)
        with pytest.raises(Interrupted, match=r"stopped"):
            guarded.check()


def test_a_child_may_end_later(clock):
    """A child with a later deadline is still stopped with its parent."""
    scope = CancelScope(seconds=1, clock=clock)
    longer = scope.child(10)
    clock.advance(2)
    longer.check()
    scope.stop(STOPPED)
    with pytest.raises(Interrupted):
        longer.check()


def test_a_stop_wakes_every_sleeper():
    """A stop wakes every sleeping thread at once with the error."""
    scope, woken = scope_of(60), []

    def sleep() -> None:
        try:
            scope.sleep(60)
        except Interrupted as error:
            woken.append(error)

    threads = [threading.Thread(target=sleep) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(scope._on_stop) == 3)
    scope.stop(STOPPED)
    for thread in threads:
        thread.join(5)
    assert woken == [STOPPED] * 3


def test_a_sleep_ends_at_the_deadline():
    """A sleep beyond the deadline ends there with a timeout."""
    scope, started = scope_of(0.05), time.monotonic()
    with pytest.raises(StepTimedOut):
        scope.sleep(60)
    assert time.monotonic() - started < 5


def test_a_short_sleep_returns(clock):
    """A sleep within the time left returns."""
    assert CancelScope(seconds=10, clock=clock).sleep(0.001) is None


def test_a_lock_is_taken_when_it_is_free(clock):
    """A stop ends the wait for a lock that another thread holds."""
    scope, lock = CancelScope(seconds=10, clock=clock), threading.Lock()
    scope.acquire(lock)
    assert lock.locked()
    threading.Timer(0.05, scope.stop, [STOPPED]).start()
    with pytest.raises(Interrupted, match=r"stopped"):
        scope.acquire(lock)
