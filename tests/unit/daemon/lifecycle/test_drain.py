"""The drain: which deliveries and steps run, and how they are stopped."""

from __future__ import annotations

import threading
import time

import pytest

from daemon.lifecycle.drain import Drain, DrainTimes
from tests.support.fakes import HandClock, scope_of
from worker_chart_export.errors import Interrupted


def test_a_drain_begins_when_it_is_started():
    """The drain begins when it is started, and not before."""
    drain = Drain()
    assert not drain.is_draining
    drain.start()
    assert drain.is_draining


def test_a_step_goes_on_while_draining():
    """A running step continues while draining; only new work is refused."""
    drain, scope = Drain(), scope_of()
    with drain.running(scope):
        drain.start()
        scope.check()


def test_stopping_stops_every_step_that_runs():
    """A stop interrupts every running step."""
    drain, scopes = Drain(), [scope_of(), scope_of()]
    with drain.running(scopes[0]), drain.running(scopes[1]):
        assert drain.steps_running == 2
        drain.stop_steps()
        for scope in scopes:
            with pytest.raises(Interrupted, match=r"the worker is shutting down"):
                scope.check()


def test_a_step_that_starts_after_the_stop_is_stopped_too():
    """A step that starts after the stop is stopped too."""
    drain, scope = Drain(), scope_of()
    drain.stop_steps()
    with drain.running(scope), pytest.raises(Interrupted):
        scope.check()


def test_a_step_that_has_ended_is_not_stopped():
    """A step that has ended is neither stopped nor counted."""
    drain, scope = Drain(), scope_of()
    with drain.running(scope):
        pass
    drain.stop_steps()
    scope.check()
    assert drain.steps_running == 0


def test_a_step_that_ends_with_an_error_is_removed():
    """A step that ends with an error is removed like any other."""
    drain = Drain()
    with pytest.raises(RuntimeError, match=r"^x$"), drain.running(scope_of()):
        raise RuntimeError("x")
    assert drain.steps_running == 0


def test_idle_is_when_every_delivery_is_settled():
    """The wait for idle ends when the last delivery is settled."""
    drain, inside, exit_now = Drain(), threading.Barrier(3), threading.Event()

    def deliver():
        with drain.delivery():
            inside.wait(5)
            exit_now.wait(5)

    threads = [threading.Thread(target=deliver) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(5)
    assert not drain.wait_until_idle(0)
    threading.Timer(0, exit_now.set).start()
    assert drain.wait_until_idle(5)
    for thread in threads:
        thread.join()


def test_the_wait_has_an_end():
    """The wait ends at its limit, also when a delivery hangs."""
    drain, started = Drain(), time.monotonic()
    with drain.delivery():
        assert not drain.wait_until_idle(0.05)
    assert time.monotonic() - started < 5


def test_a_delivery_that_ends_with_an_error_is_removed():
    """A delivery that ends with an error is removed like any other."""
    drain = Drain()
    with pytest.raises(RuntimeError, match=r"^x$"), drain.delivery():
        raise RuntimeError("x")
    assert drain.wait_until_idle(0)


def test_a_step_without_a_delivery_is_waited_for_too():
    """A step without a delivery, as of the rescue, is waited for, so that its lease is released."""
    drain, scope = Drain(), scope_of()
    with drain.running(scope):
        assert not drain.wait_until_idle(0)
    assert drain.wait_until_idle(0)


def test_start_callbacks_run_once():
    """Each start callback runs once, whether it was added before or after the start."""
    drain, called = Drain(), []
    drain.on_start(lambda: called.append("early"))
    assert called == []
    drain.start()
    drain.start()
    assert called == ["early"]
    drain.on_start(lambda: called.append("late"))
    assert called == ["early", "late"]


def test_draining_is_set_before_the_callbacks_run():
    """Draining is set before the callbacks run, so that a woken thread takes no new work."""
    drain, seen = Drain(), []
    drain.on_start(lambda: seen.append(drain.is_draining))
    drain.start()
    assert seen == [True]


def test_an_error_of_one_callback_does_not_prevent_the_others(log_lines):
    """An error in one callback does not prevent the others, at start or stop."""
    drain, called, scopes = Drain(), [], [scope_of(), scope_of()]

    def mistake(*_):
        raise RuntimeError("mistake")

    drain.on_start(mistake)
    drain.on_start(lambda: called.append("called"))
    for scope in scopes:
        scope.on_stop(mistake)
    drain.start()
    with drain.running(scopes[0]), drain.running(scopes[1]):
        drain.stop_steps()
    assert called == ["called"]
    for scope in scopes:
        with pytest.raises(Interrupted):
            scope.check()
    assert [line["event"] for line in log_lines()] == ["internal_error"] * 3


def test_quiet_is_the_time_since_the_last_delivery_was_settled():
    """Quiet is the time since the last settled delivery or the beginning, and 0 during a delivery."""
    clock = HandClock()
    drain = Drain(clock.monotonic)
    clock.advance(3)
    assert drain.quiet_seconds() == 3
    with drain.delivery():
        with drain.delivery():
            clock.advance(3)
        clock.advance(3)
        assert drain.quiet_seconds() == 0
    assert drain.quiet_seconds() == 0
    clock.advance(3)
    assert drain.quiet_seconds() == 3


@pytest.mark.parametrize(
    ("seconds", "finish", "settle"),
    [(1, 0.3, 0.8), (2, 0.6, 1.6), (5, 1.5, 4), (7.5, 2.25, 6), (25, 19.5, 23.5), (3600, 3594.5, 3598.5)],
)
def test_every_stage_of_a_drain_has_its_time(seconds, finish, settle):
    """Each stage of a drain has its time; what settling and releasing do not need is for the steps."""
    times = DrainTimes.of(start=100, seconds=seconds)
    assert (times.finish, times.settle, times.end) == pytest.approx(
        (100 + finish, 100 + settle, 100 + seconds)
    )


def test_a_delivery_that_hangs_does_not_count_as_one_that_arrives():
    """A delivery that is older than the limit leaves the stream quiet since the limit passed."""
    clock = HandClock()
    drain = Drain(clock.monotonic, max_delivery_seconds=60)
    with drain.delivery():
        clock.advance(60)
        assert drain.quiet_seconds() == 0
        clock.advance(3)
        assert drain.quiet_seconds() == 3
        with drain.delivery():
            assert drain.quiet_seconds() == 0
        clock.advance(1)
        assert drain.quiet_seconds() == 1
        assert not drain.wait_until_idle(0)
    assert drain.quiet_seconds() == 0
    assert drain.wait_until_idle(0)
