"""The time a step may take, and how it is stopped."""

from __future__ import annotations

import threading
import time

import pytest

from tests.unit.doubles import HandClock, budget_of
from worker_chart_export.budget import StepBudget
from worker_chart_export.errors import Interrupted, StepTimedOut

STOPPED = Interrupted("told to")


@pytest.fixture
def clock():
    """A clock moved by the test."""
    return HandClock()


def test_time_left_is_work_allowed(clock):
    """Up to the last moment."""
    budget = StepBudget(seconds=10, clock=clock)
    clock.advance(9.9)
    budget.check()
    assert budget.remaining_seconds() == pytest.approx(0.1)


def test_time_used_up_is_a_timeout(clock):
    """From the deadline on, and never less than nothing is left."""
    budget = StepBudget(seconds=10, clock=clock)
    clock.advance(25)
    assert budget.remaining_seconds() == 0.0
    with pytest.raises(StepTimedOut):
        budget.check()


def test_time_used_up_is_no_stop(clock):
    """The manifest is still written in the reserve."""
    budget = StepBudget(seconds=1, clock=clock)
    clock.advance(2)
    budget.check_stopped()


def test_a_stopped_budget_raises_what_it_was_stopped_with(clock):
    """And has no time left, so that retries end."""
    budget = StepBudget(seconds=10, clock=clock)
    budget.stop(STOPPED)
    assert budget.remaining_seconds() == 0.0
    for ask in (budget.check, budget.check_stopped, lambda: budget.sleep(1)):
        with pytest.raises(Interrupted, match=r"told to"):
            ask()


def test_the_first_stop_stays(clock):
    """A later reason does not hide the first."""
    budget = StepBudget(seconds=10, clock=clock)
    budget.stop(STOPPED)
    budget.stop(StepTimedOut("late"))
    with pytest.raises(Interrupted):
        budget.check()


def test_a_part_ends_earlier(clock):
    """By what is reserved of the whole."""
    whole = StepBudget(seconds=10, clock=clock)
    part = whole.part(reserve_seconds=4)
    clock.advance(7)
    assert (part.remaining_seconds(), whole.remaining_seconds()) == (0.0, pytest.approx(3))


def test_a_part_of_less_than_the_reserve_has_no_time(clock):
    """Not a negative one."""
    part = StepBudget(seconds=3, clock=clock).part(reserve_seconds=4)
    with pytest.raises(StepTimedOut):
        part.check()


@pytest.mark.parametrize("stopped_first", [True, False])
def test_a_part_stops_with_the_whole(clock, stopped_first):
    """Also when the whole was stopped before the part was made."""
    whole = StepBudget(seconds=10, clock=clock)
    if stopped_first:
        whole.stop(STOPPED)
    part = whole.part(reserve_seconds=1)
    whole.stop(STOPPED)
    with pytest.raises(Interrupted):
        part.check()


def test_the_whole_goes_on_when_a_part_is_stopped(clock):
    """Charts out of time leave the manifest its time."""
    whole = StepBudget(seconds=10, clock=clock)
    whole.part(reserve_seconds=1).stop(StepTimedOut("charts"))
    whole.check()


def test_callbacks_hear_of_a_stop_once(clock):
    """Those added before and after it."""
    budget, heard = StepBudget(seconds=10, clock=clock), []
    budget.on_stop(heard.append)
    budget.stop(STOPPED)
    budget.stop(STOPPED)
    budget.on_stop(heard.append)
    assert heard == [STOPPED, STOPPED]


def test_a_stop_wakes_every_sleeper():
    """At once, each with the error."""
    budget, asleep, woken = budget_of(60), threading.Barrier(4), []

    def sleep() -> None:
        asleep.wait()
        try:
            budget.sleep(60)
        except Interrupted as error:
            woken.append(error)

    threads = [threading.Thread(target=sleep) for _ in range(3)]
    for thread in threads:
        thread.start()
    asleep.wait()
    budget.stop(STOPPED)
    for thread in threads:
        thread.join(5)
    assert woken == [STOPPED] * 3


def test_a_sleep_ends_at_the_deadline():
    """With a timeout, however long it was to be."""
    budget, started = budget_of(0.05), time.monotonic()
    with pytest.raises(StepTimedOut):
        budget.sleep(60)
    assert time.monotonic() - started < 5


def test_a_short_sleep_returns(clock):
    """When there is time left after it."""
    assert StepBudget(seconds=10, clock=clock).sleep(0.001) is None
