"""Stopping: who is still working, and how they are told."""

from __future__ import annotations

import threading
import time

import pytest

from daemon.drain import Drain
from tests.unit.doubles import budget_of
from worker_chart_export.errors import Interrupted


def test_a_drain_begins_when_it_is_told_to():
    """Not before."""
    drain = Drain()
    assert not drain.is_draining
    drain.start()
    assert drain.is_draining


def test_a_step_goes_on_while_draining():
    """Stage one takes only new work away."""
    drain, budget = Drain(), budget_of()
    with drain.running(budget):
        drain.start()
        budget.check()


def test_stopping_stops_every_step_that_runs():
    """As an interruption."""
    drain, budgets = Drain(), [budget_of(), budget_of()]
    with drain.running(budgets[0]), drain.running(budgets[1]):
        assert drain.steps_running == 2
        drain.stop_steps()
        for budget in budgets:
            with pytest.raises(Interrupted, match=r"the worker is shutting down"):
                budget.check()


def test_a_step_that_starts_after_the_stop_is_stopped_too():
    """It may have been on its way."""
    drain, budget = Drain(), budget_of()
    drain.stop_steps()
    with drain.running(budget), pytest.raises(Interrupted):
        budget.check()


def test_a_step_that_has_ended_is_not_stopped():
    """Nor counted."""
    drain, budget = Drain(), budget_of()
    with drain.running(budget):
        pass
    drain.stop_steps()
    budget.check()
    assert drain.steps_running == 0


def test_a_step_that_ends_by_an_error_is_let_go():
    """Like any other."""
    drain = Drain()
    with pytest.raises(RuntimeError, match=r"^x$"), drain.running(budget_of()):
        raise RuntimeError("x")
    assert drain.steps_running == 0


def test_idle_is_when_every_delivery_is_settled():
    """The wait ends with the last of them."""
    drain, inside, leave = Drain(), threading.Barrier(3), threading.Event()

    def deliver():
        with drain.delivery():
            inside.wait(5)
            leave.wait(5)

    threads = [threading.Thread(target=deliver) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(5)
    assert not drain.wait_until_idle(0)
    threading.Timer(0, leave.set).start()
    assert drain.wait_until_idle(5)
    for thread in threads:
        thread.join()


def test_the_wait_has_an_end():
    """A delivery that hangs holds nobody for ever."""
    drain, started = Drain(), time.monotonic()
    with drain.delivery():
        assert not drain.wait_until_idle(0.05)
    assert time.monotonic() - started < 5


def test_a_delivery_that_ends_by_an_error_is_over():
    """Like any other."""
    drain = Drain()
    with pytest.raises(RuntimeError, match=r"^x$"), drain.delivery():
        raise RuntimeError("x")
    assert drain.wait_until_idle(0)
