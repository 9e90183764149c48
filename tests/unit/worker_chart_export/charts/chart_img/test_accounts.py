"""The accounts: plans, learned limits, and the rate of calls."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from tests.support.charts.chart_img_samples import account, at_once, until
from tests.support.fakes import HandClock, scope_of
from worker_chart_export.charts.base import DEFAULT_HEIGHT, DEFAULT_WIDTH
from worker_chart_export.charts.chart_img.account_state import account_states, why_none_left
from worker_chart_export.charts.chart_img.accounts import Demand, RateLimit, why_not_on_plan
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import Interrupted, StepTimedOut
from worker_chart_export.timing import SystemClock

NOW, MIDNIGHT, DAY = 1000.0, 44200.0, 86400.0


def _state(**fields):
    (state,) = account_states([account(**fields)], SystemClock())
    return state


class TestPlan:
    """The bounds of an account's plan in the settings."""

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
        """A plan bounds studies, drawings and pixels; an unknown plan has no bound."""
        demand = Demand(parameters=parameters, width=size[0], height=size[1])
        assert (why_not_on_plan(account(plan=plan), demand) is None) is fits

    @pytest.mark.parametrize("plan", ["BASIC", None])
    def test_the_account_s_own_bound_wins_over_its_plan_s(self, plan):
        """The account's own bound replaces that of its plan, because Chart-IMG may change its plans."""
        demand = Demand(parameters=4, width=800, height=600)
        assert why_not_on_plan(account(plan=plan, max_parameters=4), demand) is None
        why = why_not_on_plan(account(plan=plan, max_parameters=2), demand)
        assert why == "4 studies and drawings, its plan allows 2"

    def test_the_size_is_named(self):
        """The refusal names the size, so that a person can change it."""
        demand = Demand(parameters=0, width=1024, height=768)
        assert why_not_on_plan(account(plan="BASIC"), demand) == "1024x768 pixels, its plan allows 800x600"


def test_the_demand_of_a_request():
    """Studies and drawings count together; a request without a size has the provider's own."""
    payload = {"studies": [1, 2], "drawings": [3], "width": 1024, "height": 700}
    assert Demand.of(payload) == Demand(parameters=3, width=1024, height=700)
    assert Demand.of({}) == Demand(parameters=0, width=DEFAULT_WIDTH, height=DEFAULT_HEIGHT)


class TestState:
    """What this process has learned about an account."""

    def test_a_used_up_account_is_usable_again_after_its_time(self):
        """A used-up account is usable again after its time and not before."""
        state = _state()
        state.exhaust(now=NOW, until=MIDNIGHT, day_ends=MIDNIGHT)
        assert state.why_unusable(MIDNIGHT - 0.1) == "used up for today"
        assert state.why_unusable(MIDNIGHT) is None

    def test_it_is_logged_once_a_day(self):
        """A used-up account is logged once a day, however many charts find it."""
        state = _state()
        found = [(NOW, NOW + 60), (NOW, NOW + 60), (NOW + 60, NOW + 120), (NOW + 130, MIDNIGHT)]
        logged = [state.exhaust(now=now, until=until, day_ends=MIDNIGHT) for now, until in found]
        assert logged == [True, False, False, False]
        assert state.exhaust(now=MIDNIGHT, until=MIDNIGHT + 60, day_ends=MIDNIGHT + DAY)

    def test_an_earlier_time_changes_nothing(self):
        """An earlier end time does not make a used-up account usable again."""
        state = _state()
        state.exhaust(now=NOW, until=MIDNIGHT, day_ends=MIDNIGHT)
        assert not state.exhaust(now=NOW, until=NOW - 1, day_ends=NOW - 1)
        assert state.why_unusable(NOW) is not None

    def test_a_late_answer_of_yesterday_is_not_logged(self):
        """A late response of yesterday is not logged, because the account is usable."""
        state = _state()
        assert not state.exhaust(now=NOW, until=NOW - 1, day_ends=NOW - 1)
        assert state.why_unusable(NOW) is None

    def test_a_size_that_a_plan_has_refused_is_refused_again(self):
        """A size that a plan has refused is refused until the day ends for all charts that need as much."""
        state = _state()
        state.refuse_demand(Demand(parameters=4, width=800, height=600), "Exceed", until=MIDNIGHT)
        for parameters, width, height, text in (
            *((4, 800, 600, "plan too small: Exceed"), (5, 1920, 1080, "plan too small: Exceed")),
            *((3, 1920, 1080, None), (9, 799, 600, None), (9, 800, 599, None)),
        ):
            demand = Demand(parameters=parameters, width=width, height=height)
            assert state.why_too_small(demand, NOW) == text
        state.refuse_demand(Demand(parameters=2, width=800, height=600), "Smaller", until=MIDNIGHT)
        four = Demand(parameters=4, width=800, height=600)
        assert state.why_too_small(four, NOW) == "plan too small: Smaller"
        assert state.why_too_small(four, MIDNIGHT) is None

    def test_a_refused_key_is_tried_again_after_a_minute_and_then_later_each_time(self):
        """A refused key is tried again after 1, 2, 4 ... minutes, at most an hour."""
        state, now, waits = _state(), NOW, []
        for _ in range(9):
            waits.append(state.refuse_key("its key is refused", now))
            assert state.refuse_key("overtaken", now + 1) is None
            assert state.why_unusable(now + waits[-1] - 0.1) == "its key is refused"
            now += waits[-1]
            assert state.why_unusable(now) is None
            assert state.why_lost(now) == "its key is refused"
        assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
        state.answered()
        assert (state.why_lost(now), state.refuse_key("again", now)) == (None, 60)

    def test_a_used_up_account_without_a_day_left_is_not_logged(self):
        """Its day ends at this moment."""
        assert not _state().exhaust(now=NOW, until=NOW + 60, day_ends=NOW)

    def test_how_long_it_is_not_tried(self):
        """A refused key and a used-up account are tried again at their times, and the later one counts."""
        state = _state()
        assert state.seconds_until_tried(NOW) == 0
        state.exhaust(now=NOW, until=NOW + 30, day_ends=MIDNIGHT)
        assert [state.seconds_until_tried(NOW + after) for after in (0, 20, 30, 40)] == [30, 10, 0, 0]
        assert state.why_lost(MIDNIGHT - 0.1) == "used up for today"
        assert state.why_lost(MIDNIGHT) is None
        state.refuse_key("its key is refused", NOW)
        assert [state.seconds_until_tried(NOW + after) for after in (0, 20, 60, 70)] == [60, 40, 0, 0]
        state.answered()
        state.has_calls()
        assert (state.seconds_until_tried(NOW), state.why_lost(NOW)) == (0, None)

    def test_a_plan_is_too_small_by_its_settings(self):
        """Nothing needs to be learned for that."""
        demand = Demand(parameters=4, width=800, height=600)
        assert _state(plan="BASIC").why_too_small(demand, NOW) == (
            "plan too small: 4 studies and drawings, its plan allows 3"
        )
        assert _state(plan="PRO").why_too_small(demand, NOW) is None

    def test_the_refusal_of_a_larger_chart_stays(self):
        """The refusal of a smaller chart says nothing about when the larger one is tried again."""
        state = _state()
        small, large = (Demand(parameters=count, width=800, height=600) for count in (2, 4))
        state.refuse_demand(small, "Small", until=NOW + 60)
        state.refuse_demand(large, "Large", until=NOW + 30)
        assert state.why_too_small(large, NOW + 45) == "plan too small: Small"
        state.refuse_demand(large, "Large", until=MIDNIGHT)
        state.refuse_demand(small, "Small", until=NOW + 60)
        assert state.why_too_small(large, NOW + 90) is None

    def test_a_new_key_is_tried_with_one_call(self):
        """What was learned of the former key does not count; the rest of the settings stays."""
        state = _state(daily_limit=7)
        state.refuse_key("its key is refused", NOW)
        assert not state.use_key_of(account())
        assert state.refusal_reason == "its key is refused"
        state.answered()
        assert state.use_key_of(account(key="another"))
        assert (state.account.api_key.get_secret_value(), state.account.daily_limit) == ("another", 7)
        assert not state.is_refused
        with (
            state.call_permit(scope_of()) as first,
            state.call_permit(scope_of(), max_wait_seconds=0) as other,
        ):
            assert (first, other) == (True, False)

    def test_one_call_tries_a_refused_key(self):
        """After a refusal one call at a time is made, although the key was valid before."""
        state = _state()
        state.answered()
        state.refuse_key("its key is refused", NOW)
        with (
            state.call_permit(scope_of()) as first,
            state.call_permit(scope_of(), max_wait_seconds=0) as other,
        ):
            assert (first, other) == (True, False)

    def test_none_is_left_when_each_one_is_lost(self):
        """No account is left when each is used up or refused, also while they are read again."""
        first, second = account_states([account("a"), account("b")], SystemClock())
        assert why_none_left([], NOW) is None
        first.exhaust(now=NOW, until=NOW + 60, day_ends=MIDNIGHT)
        assert why_none_left([first, second], NOW) is None
        second.refuse_key("its key is refused", NOW)
        expected = "No Chart-IMG account is left: a: used up for today; b: its key is refused"
        assert why_none_left([first, second], NOW + 61) == expected
        first.has_calls()
        assert why_none_left([first, second], NOW + 61) is None

    def test_until_the_first_answer_one_call_is_under_way(self):
        """Until the first response one call runs, and the second waits for its end."""
        state, order = _state(), []
        entered, go = threading.Event(), threading.Event()

        def first():
            with state.call_permit(scope_of()):
                entered.set()
                go.wait(10)
                order.append("first")

        thread = threading.Thread(target=first)
        thread.start()
        assert entered.wait(10)
        threading.Timer(0.1, go.set).start()
        with state.call_permit(scope_of()):
            order.append("second")
        thread.join()
        assert order == ["first", "second"]

    def test_after_the_first_answer_all_go(self):
        """After the first response no call waits for another one."""
        state = _state()
        with state.call_permit(scope_of()):
            state.answered()
            with state.call_permit(scope_of(0.0)):
                pass

    def test_a_wait_for_the_first_answer_ends_with_a_stop(self):
        """A stop at once wakes a call that waits for the first response."""
        state, scope = _state(), scope_of(60)
        with state.call_permit(scope_of()):
            threading.Timer(0.1, scope.stop, (Interrupted("stop"),)).start()
            started = time.monotonic()
            with pytest.raises(Interrupted), state.call_permit(scope):
                pass
            assert time.monotonic() - started < 2

    def test_a_wait_for_the_first_answer_has_a_limit(self):
        """A wait for the first response ends at its limit without a permit."""
        state = _state()
        with state.call_permit(scope_of()) as first:
            with state.call_permit(scope_of(), max_wait_seconds=0.1) as second:
                assert (first, second) == (True, False)
            with state.call_permit(scope_of(), max_wait_seconds=0.1) as third:
                assert third is False
        with state.call_permit(scope_of()) as fourth:
            assert fourth is True

    def test_a_wait_for_the_first_answer_ends_with_the_step(self):
        """A wait for the first response ends with the step's time, as StepTimedOut."""
        state = _state()
        with state.call_permit(scope_of()), pytest.raises(StepTimedOut), state.call_permit(scope_of(0.2)):
            pass


class TestRate:
    """A token bucket with a queue."""

    def test_a_burst_starts_at_once_and_then_one_by_one(self):
        """Three calls start at once, then two a second."""
        clock = HandClock()
        rate = RateLimit(per_second=2.0, burst=3, clock=clock)
        assert _waits(rate, clock, 6) == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]

    def test_a_rest_fills_the_bucket(self):
        """The bucket fills during a pause, but never holds more than a burst."""
        clock = HandClock()
        rate = RateLimit(per_second=2.0, burst=3, clock=clock)
        assert _waits(rate, clock, 3) == [0.0, 0.0, 0.0]
        clock.advance(0.5)
        assert _waits(rate, clock, 2) == [0.0, 0.5]
        clock.advance(1000)
        assert _waits(rate, clock, 4) == [0.0, 0.0, 0.0, 0.5]

    def test_a_burst_of_one_is_a_steady_pace(self):
        """A burst of one gives one call a second."""
        clock = HandClock()
        assert _waits(RateLimit(per_second=1.0, burst=1, clock=clock), clock, 3) == [0.0, 1.0, 1.0]

    def test_threads_share_it(self):
        """Threads share the bucket: 20 calls at 100 a second take at least 190 ms."""
        rate, started = RateLimit(per_second=100.0, burst=1, clock=SystemClock()), time.monotonic()
        assert at_once([partial(rate.wait, scope_of())] * 20) == [True] * 20
        assert time.monotonic() - started >= 0.19

    def test_too_many_callers_still_get_the_full_rate(self):
        """With more callers than the rate allows, the full rate is still used.

        24 threads with 100 ms each want more than 100 a second, and about 100 a second get it. A later caller
        does not wait for those that got False; else only two or three would get it.
        """
        rate, clock = RateLimit(per_second=100.0, burst=1, clock=SystemClock()), SystemClock()
        started, results = clock.monotonic(), []

        def ask_again_and_again():
            while clock.monotonic() - started < 1:
                results.append(_or_none(rate, scope_of(0.1)))
                threading.Event().wait(0.01)

        threads = [threading.Thread(target=ask_again_and_again) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results.count(True) >= 15
        assert rate.wait(scope_of(0.2))

    def test_a_caller_that_is_too_late_takes_no_place(self):
        """A caller that can't start in time gets False at once, and the next one does not wait for it."""
        clock = HandClock()
        rate = RateLimit(per_second=1.0, burst=1, clock=clock)
        rate.wait(scope_of())
        assert [rate.wait(scope_of(0.5)) for _ in range(50)] == [False] * 50
        assert _waits(rate, clock, 1) == [1.0]

    def test_a_caller_that_starts_exactly_at_its_end_is_in_time(self):
        """It waits for all of its time."""
        clock = HandClock()
        rate = RateLimit(per_second=1.0, burst=1, clock=clock)
        assert _waits(rate, clock, 1) == [0.0]
        assert rate.wait(_HandScope(clock, seconds=1.0))

    def test_a_caller_waits_for_those_before_it(self):
        """The second one in the queue gets the second token."""
        clock = HandClock()
        rate, waited = RateLimit(per_second=4.0, burst=1, clock=clock), []

        class Second(_HandScope):
            def sleep(self, seconds):
                waited.append(seconds)
                raise Interrupted("stop")

        class First(_HandScope):
            def sleep(self, seconds):
                _or_none(rate, Second(clock))
                super().sleep(seconds)

        assert _waits(rate, clock, 1) == [0.0]
        assert rate.wait(First(clock))
        assert waited == [0.5]

    def test_a_stopped_caller_leaves_the_queue(self):
        """A stopped caller leaves the queue, and the next one waits as if it had never been in it."""
        rate, scope = RateLimit(per_second=10.0, burst=1, clock=SystemClock()), scope_of(200)
        rate.wait(scope)
        waiting = [threading.Thread(target=_or_none, args=(rate, scope)) for _ in range(30)]
        for thread in waiting:
            thread.start()
        until(lambda: len(rate._queue) >= 25)
        scope.stop(Interrupted("stop"))
        for thread in waiting:
            thread.join()
        assert rate.wait(scope_of(0.5))

    def test_callers_behind_a_stopped_one_move_up(self):
        """Callers behind a stopped one move up within a second."""
        rate = RateLimit(per_second=1.0, burst=1, clock=SystemClock())
        rate.wait(scope_of())
        stopped, started = scope_of(200), time.monotonic()
        before = [threading.Thread(target=_or_none, args=(rate, stopped)) for _ in range(10)]
        for thread in before:
            thread.start()
        until(lambda: len(rate._queue) == 10)
        threading.Timer(0.1, stopped.stop, (Interrupted("stop"),)).start()
        assert rate.wait(scope_of(60))
        assert time.monotonic() - started < 4
        for thread in before:
            thread.join()

    def test_a_stop_ends_a_wait(self):
        """A stop wakes a waiting caller at once."""
        rate, scope = RateLimit(per_second=0.01, burst=1, clock=SystemClock()), scope_of(200)
        rate.wait(scope)
        threading.Timer(0.1, scope.stop, (Interrupted("stop"),)).start()
        started = time.monotonic()
        with pytest.raises(Interrupted):
            rate.wait(scope)
        assert time.monotonic() - started < 2

    def test_a_stopped_caller_gets_the_stop(self):
        """A stopped caller gets the stop and not False, which would mean a too busy account."""
        rate, scope = RateLimit(per_second=0.01, burst=1, clock=SystemClock()), scope_of(200)
        rate.wait(scope)
        scope.stop(Interrupted("stop"))
        with pytest.raises(Interrupted):
            rate.wait(scope)


class _HandScope(CancelScope):
    """A scope whose sleep advances the clock."""

    def __init__(self, clock, *, seconds=1e6):
        super().__init__(seconds=seconds, clock=clock)
        self._hand = clock

    def sleep(self, seconds):
        """Advance the clock in place of a wait."""
        self._hand.advance(seconds)


def _waits(rate, clock, count):
    """Return the waits of this number of callers, one after the other."""
    waits, scope = [], _HandScope(clock)
    for _ in range(count):
        before = clock.monotonic()
        assert rate.wait(scope)
        waits.append(clock.monotonic() - before)
    return waits


def _or_none(rate, scope):
    """Return the result of `wait`, or None when the step was stopped or timed out."""
    try:
        return rate.wait(scope)
    except (Interrupted, StepTimedOut):
        return None
