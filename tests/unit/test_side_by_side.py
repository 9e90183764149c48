"""Charts made several at a time: what is left behind when the step's time is over."""

from __future__ import annotations

import threading

import pytest

from tests.unit.doubles import NOON, HandClock, budget_of
from worker_chart_export.budget import StepBudget
from worker_chart_export.errors import Interrupted, StepTimedOut
from worker_chart_export.manifest import ManifestFailure, ManifestItem
from worker_chart_export.side_by_side import make_side_by_side


def _item(template_id):
    return ManifestItem(
        template_id=template_id,
        kind="k",
        png_uri="gs://b/x.png",
        generated_at=NOON,
        meta={"provider": "mock"},
    )


class HangingChart:
    """Makes its chart only once it is released, and then asks its budget as every paid call does."""

    def __init__(self, budget):
        self.budget = budget
        self.release = threading.Event()
        self.heard = None
        self.ended = threading.Event()

    def __call__(self, template_id):
        """Hang, ask, and make the chart if it is still wanted."""
        try:
            assert self.release.wait(20)
            self.budget.check()
        except StepTimedOut as error:
            self.heard = error
            raise
        finally:
            self.ended.set()
        return _item(template_id)


def test_a_chart_that_finishes_late_finds_its_budget_stopped():
    """Stopped, not merely used up: on a clock that stands, only the stop can tell it."""
    budget = StepBudget(seconds=0.2, clock=HandClock())
    chart = HangingChart(budget)
    (result,) = make_side_by_side(chart, ["ctpl_a"], threads=1, budget=budget)
    assert isinstance(result, ManifestFailure)
    chart.release.set()
    assert chart.ended.wait(10)
    assert str(chart.heard) == "The step's time ended before this chart was made."


def test_the_budget_is_stopped_also_when_all_charts_came_in_time():
    """Nobody makes anything more with it."""
    budget = budget_of()
    assert make_side_by_side(_item, ["a", "b"], threads=2, budget=budget) == [_item("a"), _item("b")]
    with pytest.raises(StepTimedOut):
        budget.check_stopped()


def test_the_budget_is_stopped_also_when_a_chart_ends_the_step():
    """Its siblings pay for nothing more."""
    budget = budget_of()

    def broken(_template_id):
        raise KeyError("x")

    with pytest.raises(KeyError):
        make_side_by_side(broken, ["a"], threads=1, budget=budget)
    with pytest.raises(StepTimedOut):
        budget.check_stopped()


def test_what_stopped_the_step_first_stays():
    """An interruption does not turn into a timeout."""
    budget = budget_of()
    budget.stop(Interrupted("shutdown"))
    with pytest.raises(Interrupted):
        make_side_by_side(_item, ["a"], threads=1, budget=budget)
    with pytest.raises(Interrupted):
        budget.check_stopped()
