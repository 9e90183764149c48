"""When a process counts as dead."""

from __future__ import annotations

import pytest

from daemon.lifecycle.liveness import Liveness
from tests.support.fakes import HandClock


@pytest.fixture
def clock():
    """Return a clock that the test sets."""
    return HandClock()


@pytest.fixture
def liveness(clock):
    """Return the liveness of a process without loops."""
    return Liveness(clock.monotonic)


def test_a_process_without_expected_loops_is_alive(liveness):
    """A process without expected loops, as during its start, is alive."""
    assert liveness.why_dead() is None


def test_a_loop_has_its_whole_time_from_the_start(liveness, clock):
    """A loop has its whole time from the start before its first tick."""
    liveness.expect("main", within_seconds=30)
    clock.advance(30)
    assert liveness.why_dead() is None
    clock.advance(1)
    assert liveness.why_dead() == "loop main is silent for 31 s, more than 30 s"


def test_a_tick_gives_new_time(liveness, clock):
    """A tick, by name or by the function from `expect`, restarts the time."""
    tick = liveness.expect("main", within_seconds=30)
    clock.advance(29)
    tick()
    clock.advance(29)
    liveness.tick("main")
    clock.advance(29)
    assert liveness.why_dead() is None


def test_a_loop_that_ticks_again_is_alive_again(liveness, clock):
    """A loop that was silent and ticks again is alive again."""
    tick = liveness.expect("main", within_seconds=30)
    clock.advance(100)
    assert liveness.why_dead() is not None
    tick()
    assert liveness.why_dead() is None


def test_one_silent_loop_among_others_is_enough_and_is_named(liveness, clock):
    """One silent loop is enough to be dead and is named; each loop has its own time."""
    liveness.expect("slow", within_seconds=300)
    liveness.expect("rescue", within_seconds=10)
    clock.advance(11)
    assert liveness.why_dead() == "loop rescue is silent for 11 s, more than 10 s"


def test_a_failure_lasts_until_it_is_cleared(liveness):
    """A failure stays until it is cleared; ticks do not clear it."""
    tick = liveness.expect("main", within_seconds=30)
    liveness.fail("stream", "can't be opened")
    tick()
    assert liveness.why_dead() == "stream: can't be opened"
    liveness.clear("stream")
    assert liveness.why_dead() is None


def test_all_reasons_are_given(liveness, clock):
    """All reasons are in one line."""
    liveness.expect("main", within_seconds=1)
    liveness.fail("stream", "closed")
    clock.advance(2)
    assert liveness.why_dead() == "loop main is silent for 2 s, more than 1 s; stream: closed"


def test_a_stopping_process_is_alive(liveness, clock):
    """A stopping process counts as alive, because the drain's time limits its end."""
    liveness.expect("main", within_seconds=1)
    liveness.retire()
    clock.advance(100)
    assert liveness.why_dead() is None


def test_a_part_that_is_too_old_makes_the_process_dead_until_it_is_gone(liveness):
    """The reason says what is wrong, for how long, and the limit."""
    ages = [0.0]
    liveness.limit_age("steps", lambda: ages[0], max_seconds=385, failure="one has run")
    ages[0] = 385.0
    assert (liveness.why_dead(), liveness.health_report().parts) == (None, {"steps": "ok"})
    ages[0] = 400.0
    assert liveness.why_dead() == "steps: one has run for 400 s, more than 385 s"
    ages[0] = 0.0
    assert liveness.why_dead() is None
