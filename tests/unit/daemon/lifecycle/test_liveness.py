"""What makes a process count as dead."""

from __future__ import annotations

import pytest

from daemon.lifecycle.liveness import Liveness
from tests.support.fakes import HandClock


@pytest.fixture
def clock():
    """Turned by hand."""
    return HandClock()


@pytest.fixture
def liveness(clock):
    """Of a process without loops."""
    return Liveness(clock.monotonic)


def test_a_process_of_which_nothing_is_expected_is_alive(liveness):
    """While it starts."""
    assert liveness.why_dead() is None


def test_a_loop_has_its_whole_time_from_the_start(liveness, clock):
    """It need not tick at once."""
    liveness.expect("main", within_seconds=30)
    clock.advance(30)
    assert liveness.why_dead() is None
    clock.advance(1)
    assert liveness.why_dead() == "loop main is silent for 31 s, more than 30 s"


def test_a_tick_gives_new_time(liveness, clock):
    """By the name or by what `expect` gave."""
    tick = liveness.expect("main", within_seconds=30)
    clock.advance(29)
    tick()
    clock.advance(29)
    liveness.tick("main")
    clock.advance(29)
    assert liveness.why_dead() is None


def test_a_loop_that_ticks_again_is_alive_again(liveness, clock):
    """It was only slow."""
    tick = liveness.expect("main", within_seconds=30)
    clock.advance(100)
    assert liveness.why_dead() is not None
    tick()
    assert liveness.why_dead() is None


def test_one_silent_loop_among_others_is_enough_and_is_named(liveness, clock):
    """Each has a time of its own."""
    liveness.expect("slow", within_seconds=300)
    liveness.expect("rescue", within_seconds=10)
    clock.advance(11)
    assert liveness.why_dead() == "loop rescue is silent for 11 s, more than 10 s"


def test_a_failure_lasts_until_it_is_cleared(liveness):
    """Ticks do not clear it."""
    tick = liveness.expect("main", within_seconds=30)
    liveness.fail("stream", "can't be opened")
    tick()
    assert liveness.why_dead() == "stream: can't be opened"
    liveness.clear("stream")
    assert liveness.why_dead() is None


def test_all_reasons_are_said(liveness, clock):
    """In one line."""
    liveness.expect("main", within_seconds=1)
    liveness.fail("stream", "closed")
    clock.advance(2)
    assert liveness.why_dead() == "loop main is silent for 2 s, more than 1 s; stream: closed"


def test_of_a_process_that_stops_nothing_is_expected(liveness, clock):
    """Its end is bounded by the drain's time, and a restart would only cut that short."""
    liveness.expect("main", within_seconds=1)
    liveness.retire()
    clock.advance(100)
    assert liveness.why_dead() is None
