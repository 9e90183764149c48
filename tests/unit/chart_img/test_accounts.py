"""The accounts: plans, what a process learns of them, and how fast they are called."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from tests.unit.chart_img.material import account
from tests.unit.doubles import NOON, HandClock, budget_of
from worker_chart_export.charts.chart_img.accounts import Demand, account_states, why_not_on_plan
from worker_chart_export.charts.chart_img.rate_limit import RateLimit
from worker_chart_export.charts.chart_img.usage import window_of
from worker_chart_export.clock import SystemClock
from worker_chart_export.errors import Interrupted, StepTimedOut

TODAY = window_of(NOON)
DAY = timedelta(days=1)


def _state(**fields):
    (state,) = account_states([account(**fields)], SystemClock())
    return state


class TestPlan:
    """What an account's plan allows, as far as the settings tell."""

    @pytest.mark.parametrize(
        ("plan", "parameters", "size", "fits"),
        [
            ("BASIC", 3, (800, 600), True),
            ("BASIC", 4, (800, 600), False),
            ("BASIC", 0, (801, 600), False),
            ("BASIC", 0, (800, 601), False),
            ("PRO", 5, (1920, 1080), True),
            ("PRO", 6, (1920, 1080), False),
            ("MEGA", 10, (1920, 1600), True),
            ("MEGA", 10, (1921, 1600), False),
            ("ULTRA", 25, (2048, 1920), True),
            ("ENTERPRISE", 50, (2048, 1920), True),
            ("ENTERPRISE", 51, (2048, 1920), False),
            (None, 1000, (9999, 9999), True),
        ],
    )
    def test_the_plan_s_bounds_hold(self, plan, parameters, size, fits):
        """One that is not known forbids nothing."""
        demand = Demand(parameters=parameters, width=size[0], height=size[1])
        assert (why_not_on_plan(account(plan=plan), demand) is None) is fits

    @pytest.mark.parametrize("plan", ["BASIC", None])
    def test_the_account_s_own_bound_wins_over_its_plan_s(self, plan):
        """A plan may have been changed by its provider."""
        demand = Demand(parameters=4, width=800, height=600)
        assert why_not_on_plan(account(plan=plan, max_parameters=4), demand) is None
        why = why_not_on_plan(account(plan=plan, max_parameters=2), demand)
        assert why == "4 studies and drawings, its plan allows 2"

    def test_the_size_is_named(self):
        """So that somebody can act on it."""
        demand = Demand(parameters=0, width=1024, height=768)
        assert why_not_on_plan(account(plan="BASIC"), demand) == "1024x768 pixels, its plan allows 800x600"


class TestState:
    """What this process has learned of an account."""

    def test_an_account_used_up_is_usable_again_in_a_later_window(self):
        """Until then it is not."""
        state = _state()
        state.exhaust(TODAY)
        assert state.why_unusable(TODAY) == "used up for today"
        assert state.why_unusable(TODAY + DAY) is None

    def test_it_is_news_once(self):
        """Hundreds of charts may find it out at the same time."""
        state = _state()
        assert [state.exhaust(TODAY), state.exhaust(TODAY), state.exhaust(TODAY + DAY)] == [True, False, True]
        assert [state.disable("no"), state.disable("other")] == [True, False]
        assert state.disabled == "no"

    def test_an_earlier_window_changes_nothing(self):
        """A late answer of yesterday does not reopen today."""
        state = _state()
        state.exhaust(TODAY)
        assert not state.exhaust(TODAY - DAY)
        assert state.why_unusable(TODAY) is not None

    def test_until_the_first_answer_one_call_is_under_way(self):
        """The second waits for the end of the first."""
        state, order = _state(), []
        entered, go = threading.Event(), threading.Event()

        def first():
            with state.turn(budget_of()):
                entered.set()
                go.wait(10)
                order.append("first")

        thread = threading.Thread(target=first)
        thread.start()
        assert entered.wait(10)
        threading.Timer(0.1, go.set).start()
        with state.turn(budget_of()):
            order.append("second")
        thread.join()
        assert order == ["first", "second"]

    def test_after_the_first_answer_all_go(self):
        """Nobody waits for anybody."""
        state = _state()
        with state.turn(budget_of()):
            state.answered()
            with state.turn(budget_of(0.0)):
                pass

    def test_who_waits_for_the_first_answer_is_woken_by_a_stop(self):
        """Within a moment."""
        state, budget = _state(), budget_of(60)
        with state.turn(budget_of()):
            threading.Timer(0.1, budget.stop, (Interrupted("stop"),)).start()
            started = time.monotonic()
            with pytest.raises(Interrupted), state.turn(budget):
                pass
            assert time.monotonic() - started < 2

    def test_who_waits_for_the_first_answer_waits_no_longer_than_its_step(self):
        """Then the chart has run out of time."""
        state = _state()
        with state.turn(budget_of()), pytest.raises(StepTimedOut), state.turn(budget_of(0.2)):
            pass


class TestRate:
    """A token bucket."""

    def test_so_many_at_once_and_then_one_by_one(self):
        """Three at once, two a second afterwards."""
        rate = RateLimit(per_second=2.0, burst=3, clock=HandClock())
        assert [rate.reserve_seconds() for _ in range(6)] == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]

    def test_a_rest_fills_the_bucket(self):
        """To the brim and no further."""
        clock = HandClock()
        rate = RateLimit(per_second=2.0, burst=3, clock=clock)
        for _ in range(3):
            rate.reserve_seconds()
        clock.advance(0.5)
        assert [rate.reserve_seconds() for _ in range(2)] == [0.0, 0.5]
        clock.advance(1000)
        assert [rate.reserve_seconds() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]

    def test_a_burst_of_one_is_a_steady_pace(self):
        """One each second."""
        rate = RateLimit(per_second=1.0, burst=1, clock=HandClock())
        assert [rate.reserve_seconds() for _ in range(3)] == [0.0, 1.0, 2.0]

    def test_threads_share_it(self):
        """20 calls at 100 a second, 1 at once, last at least 190 ms."""
        rate, started = RateLimit(per_second=100.0, burst=1, clock=SystemClock()), time.monotonic()
        threads = [threading.Thread(target=rate.wait, args=(budget_of(),)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started >= 0.19

    def test_a_stop_wakes_who_waits(self):
        """At once."""
        rate, budget = RateLimit(per_second=0.01, burst=1, clock=SystemClock()), budget_of(200)
        rate.wait(budget)
        threading.Timer(0.1, budget.stop, (Interrupted("stop"),)).start()
        started = time.monotonic()
        with pytest.raises(Interrupted):
            rate.wait(budget)
        assert time.monotonic() - started < 2

    def test_nobody_waits_longer_than_its_step(self):
        """The chart has run out of time."""
        rate = RateLimit(per_second=0.01, burst=1, clock=SystemClock())
        rate.wait(budget_of())
        with pytest.raises(StepTimedOut):
            rate.wait(budget_of(0.1))
