"""What the page remembers of the work: steps in flight, the last finished, thumbnails, the last hour."""

from __future__ import annotations

import io
import os
import timeit

import pytest
from PIL import Image

from daemon.page.activity import MOST_FINISHED, Activity
from daemon.page.minutes import LastHour
from daemon.page.thumbnails import MAX_PIXELS, SIZE, Thumbnails
from daemon.page.work import Result
from tests.unit.doubles import RUN_ID, STEP_ID, png_bytes
from tests.unit.page_scene import make_chart, picture, step_in_flight, work_step
from worker_chart_export.errors import ChartApiFailed, Interrupted, StepError
from worker_chart_export.outcome import Outcome, OutcomeKind
from worker_chart_export.stages import Stage, stage, tell_chart, tell_end, watched_by


class WallClock:
    """A wall clock to be turned by hand."""

    def __init__(self) -> None:
        self.now = 1_765_800_000.0

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self.now


@pytest.fixture
def clock():
    """Stands still."""
    return WallClock()


@pytest.fixture
def thumbnails():
    """Of the activity."""
    return Thumbnails()


@pytest.fixture
def activity(thumbnails, clock):
    """One that watches during the test."""
    observer = Activity(thumbnails, clock=clock)
    with watched_by(observer):
        yield observer


class TestStepsInFlight:
    """What is shown of a step while it is worked."""

    def test_its_stage_and_charts_are_told(self, activity):
        """Chart by chart, and what each is at."""
        with step_in_flight():
            (seen,) = activity.seen().running
            assert (seen.run_id, seen.step_id, seen.stage, seen.attempt) == (RUN_ID, STEP_ID, "claim", None)
            make_chart("ctpl_a", png_bytes(), requested=3)
            with (
                stage(Stage.CHART, chartTemplateId="ctpl_b", attempt=2, requested=3),
                stage(Stage.CALL, chartTemplateId="ctpl_b", symbol="IBM", timeframe="1d"),
            ):
                (seen,) = activity.seen().running
            assert (seen.stage, seen.attempt, seen.requested) == ("chart", 2, 3)
            assert (len(seen.charts), seen.doing) == (1, {"ctpl_b": Stage.CALL})
            with pytest.raises(ChartApiFailed):
                make_chart("ctpl_b", None, requested=3, error=ChartApiFailed("It refuses."))
            with stage(Stage.MANIFEST, attempt=2):
                (seen,) = activity.seen().running
        assert (seen.stage, len(seen.charts), len(seen.failures), seen.doing) == ("manifest", 1, 1, {})
        assert activity.seen().running == []

    def test_what_was_seen_stays_as_it_was(self, activity):
        """However the step goes on."""
        with step_in_flight():
            before = activity.seen()
            make_chart("ctpl_a", png_bytes())
        assert before.running[0].charts == []


class TestFinishedSteps:
    """How steps ended."""

    def test_a_success_with_its_charts(self, activity, clock):
        """And its manifest, its time and how long it took."""
        work_step(charts=2, manifest_uri="gs://b/m.json")
        (step,) = activity.seen().finished
        assert (step.result, step.code, step.reason) == (Result.SUCCEEDED, "", "")
        assert (step.seconds, step.ended, step.manifest_uri) == (0.25, clock.now, "gs://b/m.json")
        assert [chart.template_id for chart in step.charts] == ["ctpl_0", "ctpl_1"]

    def test_charts_stand_in_one_order_however_they_came(self, activity):
        """So that those of different steps can be compared."""
        with step_in_flight():
            for name in ("ctpl_b", "ctpl_c", "ctpl_a"):
                make_chart(name, png_bytes(), requested=3)
            tell_end(Outcome(kind=OutcomeKind.SUCCEEDED), 1.0)
        (step,) = activity.seen().finished
        assert [chart.template_id for chart in step.charts] == ["ctpl_a", "ctpl_b", "ctpl_c"]

    def test_a_failure_with_its_code_and_words(self, activity):
        """And the charts that failed."""
        with step_in_flight():
            with pytest.raises(ChartApiFailed):
                make_chart("ctpl_a", None, error=ChartApiFailed("It refuses."))
            error = StepError(code="CHART_API_FAILED", message="0 of 1 needed charts were made")
            tell_end(Outcome(kind=OutcomeKind.FAILED, error=error), 1.5)
        (step,) = activity.seen().finished
        assert (step.result, step.code) == (Result.FAILED, "CHART_API_FAILED")
        assert step.reason == "0 of 1 needed charts were made"
        (failure,) = step.failures
        assert (failure.template_id, failure.code, failure.message) == (
            "ctpl_a",
            "CHART_API_FAILED",
            "It refuses.",
        )

    def test_a_step_that_was_given_back(self, activity, clock):
        """Says why, and how long it was held."""

        def work():
            with step_in_flight():
                clock.now += 7
                with stage(Stage.RELEASE, attempt=1):
                    pass
                raise Interrupted("the worker is shutting down")

        with pytest.raises(Interrupted):
            work()
        (step,) = activity.seen().finished
        assert (step.result, step.reason, step.seconds) == (
            Result.RELEASED,
            "the worker is shutting down",
            7.0,
        )

    def test_a_step_that_was_lost(self, activity):
        """Its work did not count."""
        work_step(kind=OutcomeKind.FINALIZE_REFUSED, reason="fenced")
        (step,) = activity.seen().finished
        assert (step.result, step.reason) == (Result.LOST, "fenced")

    def test_a_claim_that_was_not_won_is_no_step_of_this_worker(self, activity):
        """Nor is one that failed before."""
        with step_in_flight():
            pass
        with pytest.raises(KeyError), step_in_flight():
            raise KeyError
        assert (activity.seen().running, activity.seen().finished) == ([], [])

    def test_the_last_50_are_remembered_the_latest_first(self, activity, thumbnails):
        """And no chart of an older one."""
        for number in range(MOST_FINISHED + 5):
            work_step(step_id=f"step-{number}", png=png_bytes())
        found = activity.seen().finished
        assert [step.step_id for step in found] == [f"step-{number}" for number in range(54, 4, -1)]
        assert thumbnails.held_bytes == MOST_FINISHED * len(png_bytes())

    def test_charts_outside_of_a_step_are_nobody_s(self, activity):
        """Such as those a command makes."""
        tell_chart(template_id="ctpl_a", provider="mock", uri="gs://b/n", png=b"")
        tell_end(Outcome(kind=OutcomeKind.SUCCEEDED), 1.0)
        make_chart("ctpl_a", png_bytes())
        assert activity.seen().finished == []

    def test_any_number_of_steps_takes_no_more_memory_than_fifty(self, activity, thumbnails):
        """Everything is bounded."""
        png = os.urandom(60_000)
        for number in range(200):
            work_step(step_id=f"step-{number}", charts=5, png=png)
        assert thumbnails.held_bytes <= 6 * 1024 * 1024
        assert len(thumbnails._pngs) + len(thumbnails._made) <= 5 * MOST_FINISHED
        assert len(activity._finished) == MOST_FINISHED
        assert activity._running == {}

    def test_watching_a_step_of_five_charts_takes_microseconds(self, activity):
        """Well below a thousandth of what the step itself takes; 2 ms on a machine on its knees."""
        png = png_bytes()
        took = timeit.repeat(lambda: work_step(charts=5, png=png), number=20, repeat=10)
        assert activity.seen().finished
        assert min(took) / 20 < 2e-3


class TestTheLastHour:
    """Counts by minute."""

    def test_steps_and_charts_are_counted_in_their_minute(self, activity, clock):
        """The present one stands last."""
        work_step(charts=3)
        clock.now += 60
        work_step(kind=OutcomeKind.FAILED)
        work_step(kind=OutcomeKind.FINALIZE_REFUSED)
        minutes = activity.seen().minutes
        assert len(minutes) == 60
        last, present = minutes[-2:]
        assert (last.succeeded, last.failed, last.charts) == (1, 0, 3)
        assert (present.succeeded, present.failed, present.charts) == (0, 1, 2)
        assert sum(minute.charts for minute in minutes) == 5

    def test_what_is_older_is_forgotten(self):
        """An hour later nothing is left."""
        hour = LastHour()
        hour.at(0.0).failed += 1
        assert sum(minute.failed for minute in hour.series(59 * 60.0)) == 1
        assert sum(minute.failed for minute in hour.series(60 * 60.0)) == 0

    def test_a_clock_that_was_set_back_counts_in_the_last_minute(self):
        """Nothing is lost."""
        hour = LastHour()
        hour.at(600.0).charts += 1
        hour.at(300.0).charts += 1
        assert [minute.charts for minute in hour.series(600.0)][-1] == 2


class TestThumbnails:
    """Small pictures within a bound."""

    def test_a_chart_is_made_small_when_it_is_asked_for(self, thumbnails):
        """Once; from then on the small one is kept."""
        png = picture()
        number = thumbnails.keep(png)
        assert (thumbnails.has(number), thumbnails.held_bytes) == (True, len(png))
        small = thumbnails.thumbnail(number)
        with Image.open(io.BytesIO(small)) as image:
            assert (image.format, image.size) == ("WEBP", SIZE)
        assert thumbnails.held_bytes == len(small) < len(png)
        assert thumbnails.thumbnail(number) is small

    def test_the_oldest_go_first(self):
        """When there is no room."""
        thumbnails = Thumbnails(max_bytes=100)
        first, second, third = (thumbnails.keep(b"x" * 40) for _ in range(3))
        assert [thumbnails.has(number) for number in (first, second, third)] == [False, True, True]
        too_large = thumbnails.keep(b"x" * 101)
        assert (thumbnails.has(too_large), thumbnails.held_bytes) == (False, 0)

    def test_what_is_forgotten_is_gone(self, thumbnails):
        """Small or not."""
        small, whole = thumbnails.keep(picture()), thumbnails.keep(picture())
        thumbnails.thumbnail(small)
        thumbnails.forget([small, whole, 5])
        assert (thumbnails.thumbnail(small), thumbnails.thumbnail(whole)) == (None, None)
        assert thumbnails.held_bytes == 0

    @pytest.mark.parametrize(
        "content",
        [b"", b"no picture", picture()[:200], picture(MAX_PIXELS // 1000 + 1, 1000)],
        ids=["empty", "none", "broken", "large"],
    )
    def test_what_can_t_be_decoded_is_let_go(self, thumbnails, content):
        """Nothing is tried twice."""
        number = thumbnails.keep(content)
        assert thumbnails.thumbnail(number) is None
        assert (thumbnails.has(number), thumbnails.held_bytes) == (False, 0)

    def test_numbers_of_two_processes_differ(self):
        """Else a page that outlives a worker would show the wrong chart."""
        assert Thumbnails().keep(b"") != Thumbnails().keep(b"")
