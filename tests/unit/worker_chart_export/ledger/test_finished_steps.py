"""The steps that a process has finished lately."""

from __future__ import annotations

from tests.support.fakes import HandClock
from worker_chart_export.ledger.finished_steps import MAX_STEPS, FinishedSteps


def test_each_step_is_taken_once_when_it_is_old_enough():
    """Steps are taken by run, once, when they are old enough."""
    clock = HandClock()
    finished = FinishedSteps(clock)
    finished.add("r1", "a")
    clock.advance(30)
    finished.add("r2", "b")
    finished.add("r1", "c")
    assert finished.take(older_than_seconds=31) == {}
    assert finished.take(older_than_seconds=30) == {"r1": ["a"]}
    clock.advance(30)
    assert finished.take(older_than_seconds=30) == {"r2": ["b"], "r1": ["c"]}
    assert finished.take(older_than_seconds=0) == {}


def test_of_too_many_steps_the_oldest_are_forgotten():
    """The memory of finished steps is bounded."""
    finished = FinishedSteps(HandClock())
    for number in range(MAX_STEPS + 1):
        finished.add("r", f"s{number}")
    taken = finished.take(older_than_seconds=0)["r"]
    assert (len(taken), taken[0]) == (MAX_STEPS, "s1")
