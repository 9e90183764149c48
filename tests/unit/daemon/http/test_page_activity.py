"""The page's memory: steps in flight, the last finished ones, thumbnails, the last hour."""

from __future__ import annotations

import os

import pytest

from daemon.http.page.activity import MAX_FINISHED, MAX_MESSAGE_CHARS, MAX_NOTES, Activity, LastHour, Result
from daemon.http.page.thumbnails import Thumbnails
from localcloud.faults import Fault
from tests.support.fakes import RUN_ID, STEP_ID, png_bytes
from tests.support.page.page_server import make_chart, step_in_flight, work_step
from worker_chart_export.descriptions import describe
from worker_chart_export.errors import ChartApiFailed, Interrupted, StepError
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.ledger import releases
from worker_chart_export.observability.observers import (
    Stage,
    notify_chart,
    notify_step_ended,
    stage,
    watched_by,
)


class WallClock:
    """A wall clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_765_800_000.0

    def __call__(self) -> float:
        """Return seconds since 1970."""
        return self.now


@pytest.fixture
def clock():
    """Return a clock that stands still."""
    return WallClock()


@pytest.fixture
def thumbnails():
    """Return the thumbnails of the activity."""
    return Thumbnails()


@pytest.fixture
def activity(thumbnails, clock):
    """Register an activity observer during the test."""
    observer = Activity(thumbnails, clock=clock)
    with watched_by(observer):
        yield observer


class TestStepsInFlight:
    """A step while it is worked."""

    def test_its_stage_and_charts_are_shown(self, activity):
        """A step in flight shows its stage and the stage of each chart."""
        with step_in_flight():
            (seen,) = activity.snapshot().running
            assert (seen.run_id, seen.step_id, seen.stage, seen.attempt) == (RUN_ID, STEP_ID, "claim", None)
            make_chart("ctpl_a", png_bytes(), requested=3)
            with (
                stage(Stage.CHART, chartTemplateId="ctpl_b", attempt=2, requested=3),
                stage(Stage.CALL, chartTemplateId="ctpl_b", symbol="IBM", timeframe="1d"),
            ):
                (seen,) = activity.snapshot().running
            assert (seen.stage, seen.attempt, seen.requested) == ("chart", 2, 3)
            assert (len(seen.charts), seen.doing) == (1, {"ctpl_b": Stage.CALL})
            with pytest.raises(ChartApiFailed):
                make_chart("ctpl_b", None, requested=3, error=ChartApiFailed("It refuses."))
            with stage(Stage.MANIFEST, attempt=2):
                (seen,) = activity.snapshot().running
        assert (seen.stage, len(seen.charts), len(seen.failures), seen.doing) == ("manifest", 1, 1, {})
        assert activity.snapshot().running == []

    def test_a_report_stays_as_it_was(self, activity):
        """A report stays unchanged while the step continues."""
        with step_in_flight():
            before = activity.snapshot()
            make_chart("ctpl_a", png_bytes())
        assert before.running[0].charts == []


class TestFinishedSteps:
    """Finished steps."""

    def test_a_success_with_its_charts(self, activity, clock):
        """A success shows its charts, manifest, time and duration."""
        work_step(charts=2, manifest_uri="gs://b/m.json")
        (step,) = activity.snapshot().finished
        assert (step.result, step.code, step.reason) == (Result.SUCCEEDED, "", "")
        assert (step.seconds, step.ended, step.manifest_uri) == (0.25, clock.now, "gs://b/m.json")
        assert [chart.template_id for chart in step.charts] == ["ctpl_0", "ctpl_1"]

    def test_charts_are_in_one_order(self, activity):
        """Charts are in one order, so that steps can be compared."""
        with step_in_flight():
            for name in ("ctpl_b", "ctpl_c", "ctpl_a"):
                make_chart(name, png_bytes(), requested=3)
            notify_step_ended(Outcome(kind=OutcomeKind.SUCCEEDED), 1.0)
        (step,) = activity.snapshot().finished
        assert [chart.template_id for chart in step.charts] == ["ctpl_a", "ctpl_b", "ctpl_c"]

    def test_a_failure_with_its_code_and_message(self, activity):
        """A failure shows its code, message and failed charts."""
        with step_in_flight():
            with pytest.raises(ChartApiFailed):
                make_chart("ctpl_a", None, error=ChartApiFailed("It refuses."))
            error = StepError(code="CHART_API_FAILED", message="0 of 1 needed charts were made")
            notify_step_ended(Outcome(kind=OutcomeKind.FAILED, error=error), 1.5)
        (step,) = activity.snapshot().finished
        assert (step.result, step.code) == (Result.FAILED, "CHART_API_FAILED")
        assert step.reason == "0 of 1 needed charts were made"
        (failure,) = step.failures
        assert (failure.template_id, failure.code, failure.message) == (
            "ctpl_a",
            "CHART_API_FAILED",
            "It refuses.",
        )

    @pytest.mark.parametrize(
        ("kind", "result"),
        [(OutcomeKind.RELEASED, Result.RELEASED), (OutcomeKind.NOT_RELEASED, Result.UNRELEASED)],
    )
    def test_a_step_that_was_released(self, activity, kind, result):
        """A released step shows the reason and how long it was held."""

        def work():
            with step_in_flight():
                notify_step_ended(Outcome(kind=kind), 7.0)
                raise Interrupted("the worker is shutting down")

        with pytest.raises(Interrupted):
            work()
        (step,) = activity.snapshot().finished
        assert (step.result, step.reason, step.seconds) == (result, "the worker is shutting down", 7.0)

    @pytest.mark.parametrize("reason", ["fenced", "lease_lost", "not_running", "no_such_reason"])
    def test_a_step_that_was_lost(self, activity, reason):
        """A lost step shows the reason as text where there is one."""
        work_step(kind=OutcomeKind.FINALIZE_REFUSED, reason=reason)
        (step,) = activity.snapshot().finished
        assert (step.result, step.reason) == (Result.LOST, describe(reason) or reason)

    def test_any_number_of_charts_of_a_step_takes_no_more_than_the_first_hundred(self, activity, thumbnails):
        """A step shows at most its first hundred charts and limited texts; the others are counted."""
        with step_in_flight():
            for number in range(MAX_NOTES + 50):
                make_chart(f"ctpl_{number}", b"png")
                with pytest.raises(ChartApiFailed):
                    make_chart(f"bad_{number}", None, error=ChartApiFailed("x" * 2000))
            notify_step_ended(Outcome(kind=OutcomeKind.SUCCEEDED), 1.0)
        (step,) = activity.snapshot().finished
        assert (len(step.charts), step.stored) == (MAX_NOTES, MAX_NOTES + 50)
        assert (len(step.failures), step.failed) == (MAX_NOTES, MAX_NOTES + 50)
        assert {len(failure.message) for failure in step.failures} == {MAX_MESSAGE_CHARS}
        assert thumbnails.held_bytes == 3 * MAX_NOTES

    def test_a_step_that_is_rescued_takes_no_slot(self, activity):
        """A rescued step has no message and so takes no slot."""
        with step_in_flight(message_id=""), step_in_flight():
            assert [work.is_rescue for work in activity.snapshot().running] == [True, False]

    def test_a_claim_that_was_not_won_is_no_step_of_this_worker(self, activity):
        """A claim that was lost or failed is no step of this worker."""
        with step_in_flight():
            pass
        with pytest.raises(KeyError), step_in_flight():
            raise KeyError
        assert (activity.snapshot().running, activity.snapshot().finished) == ([], [])

    def test_the_last_50_are_remembered_the_latest_first(self, activity, thumbnails):
        """The last 50 steps are kept, the latest first, without charts of older ones."""
        for number in range(MAX_FINISHED + 5):
            work_step(step_id=f"step-{number}", png=png_bytes())
        found = activity.snapshot().finished
        assert [step.step_id for step in found] == [f"step-{number}" for number in range(54, 4, -1)]
        assert thumbnails.held_bytes == MAX_FINISHED * len(png_bytes())

    def test_charts_outside_of_a_step_are_not_recorded(self, activity):
        """Charts outside a step, such as those of a command, are not recorded."""
        notify_chart(template_id="ctpl_a", provider="mock", uri="gs://b/n", png=b"")
        notify_step_ended(Outcome(kind=OutcomeKind.SUCCEEDED), 1.0)
        make_chart("ctpl_a", png_bytes())
        assert activity.snapshot().finished == []

    def test_any_number_of_steps_takes_no_more_memory_than_fifty(self, activity, thumbnails):
        """Any number of steps needs no more memory than fifty."""
        png = os.urandom(60_000)
        for number in range(200):
            work_step(step_id=f"step-{number}", charts=5, png=png)
        assert thumbnails.held_bytes <= 6 * 1024 * 1024
        assert len(thumbnails._pngs) <= 5 * MAX_FINISHED
        assert len(activity._finished) == MAX_FINISHED
        assert activity._running == {}


class TestWithTheRealLedger:
    """Real work on the embedded cloud."""

    def test_a_step_that_is_failed_in_the_place_of_a_claim_is_shown(self, bench, activity):
        """A step that is failed in place of a claim is shown, because this worker failed it."""
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease(attempt=7, released=2)
        assert bench.run().kind is OutcomeKind.CLAIM_LOST
        (step,) = activity.snapshot().finished
        assert (step.result, step.code) == (Result.FAILED, "CRASH_LOOP")
        assert step.reason == bench.step()["error"]["message"]
        assert activity.snapshot().minutes[-1].failed == 1

    def test_a_success_that_firestore_refuses_to_store_is_shown_as_a_failure(self, bench, activity):
        """A success that Firestore refuses to store is shown as FAILED, as it is stored."""

        def refuse(_request):
            bench.cloud.firestore.faults.add(Fault(method="Commit", error="INVALID_ARGUMENT", times=1))
            return png_bytes()

        bench.provider.script["ctpl_a"] = refuse
        bench.put("ctpl_a")
        bench.run()
        (step,) = activity.snapshot().finished
        assert (step.result, step.code) == (Result.FAILED, "CRASH_LOOP")
        assert step.reason == bench.step()["error"]["message"]
        assert "refused to store" in step.reason

    def test_a_released_step_is_shown_as_released(self, bench, activity):
        """A released step is shown as released."""
        _stop_in_the_middle(bench, lambda: None)
        (step,) = activity.snapshot().finished
        assert (step.result, step.reason, step.attempt) == (Result.RELEASED, "enough", 1)
        assert bench.lease().released == 1

    def test_a_step_that_can_t_be_released_is_not_shown_as_released(self, bench, activity, monkeypatch):
        """A step that can't be released, because Firestore is unavailable, is not shown as released."""
        monkeypatch.setattr(releases, "RELEASE_SECONDS", 0.2)
        outage = Fault(method="Commit", error="UNAVAILABLE")
        _stop_in_the_middle(bench, lambda: bench.cloud.firestore.faults.add(outage))
        (step,) = activity.snapshot().finished
        assert (step.result, step.reason) == (Result.UNRELEASED, "enough")
        assert bench.lease().released == 0

    def test_a_step_that_another_worker_took_is_lost_and_not_released(self, bench, activity):
        """A step that another worker took is shown as lost and not as released."""
        _stop_in_the_middle(bench, lambda: bench.put_lease(attempt=2, left_seconds=60))
        (step,) = activity.snapshot().finished
        assert (step.result, step.reason) == (Result.LOST, describe("fenced"))


def _stop_in_the_middle(bench, happens, **limits):
    """Run a step that is stopped by the worker's end just after this event."""

    def stop(request):
        happens()
        request.call_scope.stop(Interrupted("enough"))
        return png_bytes()

    bench.provider.script["ctpl_a"] = stop
    bench.put("ctpl_a")
    with pytest.raises(Interrupted):
        bench.run(**limits)


class TestTheLastHour:
    """Counts per minute."""

    def test_steps_and_charts_are_counted_in_their_minute(self, activity, clock):
        """Steps and charts are counted in their minute, and the current minute is the last."""
        work_step(charts=3)
        clock.now += 60
        work_step(kind=OutcomeKind.FAILED)
        work_step(kind=OutcomeKind.FINALIZE_REFUSED)
        work_step(charts=0, kind=OutcomeKind.RELEASED)
        minutes = activity.snapshot().minutes
        assert len(minutes) == 60
        last, present = minutes[-2:]
        assert (last.succeeded, last.failed, last.charts) == (1, 0, 3)
        assert (present.succeeded, present.failed, present.unfinished, present.charts) == (0, 1, 2, 2)
        assert sum(minute.charts for minute in minutes) == 5

    def test_failed_charts_are_counted_and_those_of_an_earlier_attempt_are_not(self, activity):
        """Failed charts are counted; reused ones are not, because they were made earlier."""
        with step_in_flight():
            make_chart("ctpl_a", None)
            with pytest.raises(ChartApiFailed):
                make_chart("ctpl_b", None, error=ChartApiFailed("It refuses."))
            (seen,) = activity.snapshot().running
        minute = activity.snapshot().minutes[-1]
        assert (seen.stored, minute.charts, minute.failed_charts) == (1, 0, 1)

    def test_older_counts_are_removed(self):
        """Counts older than an hour are removed."""
        hour = LastHour()
        hour.at(0.0).failed += 1
        assert sum(minute.failed for minute in hour.series(59 * 60.0)) == 1
        assert sum(minute.failed for minute in hour.series(60 * 60.0)) == 0

    def test_a_clock_that_was_set_back_counts_in_the_last_minute(self):
        """After the clock was set back, counts are added to the last minute."""
        hour = LastHour()
        hour.at(600.0).charts += 1
        hour.at(300.0).charts += 1
        assert [minute.charts for minute in hour.series(600.0)][-1] == 2
        assert [minute.charts for minute in hour.series(300.0)][-1] == 2


class TestThumbnails:
    """The latest charts within a size limit."""

    def test_a_chart_is_kept_as_it_was_stored(self, thumbnails):
        """A chart is kept as its stored bytes and is not decoded."""
        png = b"no picture"
        number = thumbnails.keep(png)
        assert (thumbnails.has(number), thumbnails.held_bytes) == (True, len(png))
        assert thumbnails.png(number) is png

    def test_the_oldest_are_removed_first(self):
        """The oldest charts are removed when there is no room."""
        thumbnails = Thumbnails(max_bytes=100)
        first, second, third = (thumbnails.keep(b"x" * 40) for _ in range(3))
        assert [thumbnails.has(number) for number in (first, second, third)] == [False, True, True]
        too_large = thumbnails.keep(b"x" * 101)
        assert (thumbnails.has(too_large), thumbnails.held_bytes) == (False, 0)

    def test_a_removed_one_is_not_found(self, thumbnails):
        """A removed chart is not found; removing an unknown one has no effect."""
        number = thumbnails.keep(png_bytes())
        thumbnails.forget([number, 5])
        assert thumbnails.png(number) is None
        assert thumbnails.held_bytes == 0

    def test_numbers_of_two_processes_differ(self):
        """Numbers of two processes differ, so that an old page never shows a wrong chart."""
        assert Thumbnails().keep(b"") != Thumbnails().keep(b"")
