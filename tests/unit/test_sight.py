"""What a look at a run and its leases says; pure."""

from __future__ import annotations

import pytest

from daemon.handling.step_state import Sight, look_at_lease, look_at_rest, look_at_step, running_steps
from tests.unit.doubles import NOON, OHLCV_ID, STEP_ID, chart_step, lease_of, ohlcv_step, run_of, snapshot_of
from worker_chart_export.errors import RunInvalid
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.lease.lease import LeaseTerms, StoredLease

TERMS = LeaseTerms(clock_skew_seconds=5)


def _one(**step):
    return run_of({OHLCV_ID: ohlcv_step(), STEP_ID: chart_step(**step)})


def _lease_seen(*, message_id="m1", **lease):
    stored = StoredLease(lease=lease_of(**lease), update_time=NOON)
    return look_at_lease(stored, now=NOON, message_id=message_id, terms=TERMS)


class TestStep:
    """A step that is named."""

    @pytest.mark.parametrize("status", StepStatus)
    def test_every_status_has_a_sight(self, status):
        """Of a chart step."""
        expected = "final" if status.is_final else status.value.lower()
        assert look_at_step(_one(status=status.value), STEP_ID).sight == expected

    @pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "CANCELLED"])
    def test_a_final_run_makes_every_step_final(self, status):
        """Whatever the step says."""
        assert look_at_step(run_of(status=status), STEP_ID).sight is Sight.FINAL

    @pytest.mark.parametrize("step_status", ["READY", "RUNNING", "SUCCEEDED"])
    def test_another_type_is_another_type_in_any_status(self, step_status):
        """It is others' business."""
        run = run_of({"s": ohlcv_step(status=step_status)})
        assert look_at_step(run, "s").sight is Sight.OTHER_TYPE

    def test_unmet_dependencies_are_named(self):
        """So that a person sees what is waited for."""
        found = look_at_step(_one(dependsOn=[OHLCV_ID, "gone", "late"]), STEP_ID)
        assert (found.sight, found.words) == (Sight.DEPENDS_ON, "dependsOn not SUCCEEDED: gone, late")

    def test_a_dependency_that_was_skipped_is_not_met(self):
        """Only SUCCEEDED counts."""
        run = run_of({OHLCV_ID: ohlcv_step(status="SKIPPED"), STEP_ID: chart_step()})
        assert look_at_step(run, STEP_ID).sight is Sight.DEPENDS_ON

    def test_a_running_step_is_running_whatever_became_of_its_dependencies(self):
        """Its lease decides, not what it was claimed for."""
        assert look_at_step(_one(status="RUNNING", dependsOn=["gone"]), STEP_ID).sight is Sight.RUNNING

    def test_what_is_missing_is_said(self):
        """Run or step."""
        assert look_at_step(None, STEP_ID).words == "the run does not exist"
        assert look_at_step(run_of(), "gone").words == "no such step"

    def test_an_unreadable_step_is_told(self):
        """By its field."""
        with pytest.raises(RunInvalid, match=r"steps\.charts:1d:main\.status"):
            look_at_step(_one(status="??"), STEP_ID)


class TestRest:
    """A run in which nothing is eligible."""

    def test_an_unreadable_step_makes_the_run_invalid(self):
        """Somebody has to mend it."""
        run = run_of({"bad": chart_step(status="??"), "done": chart_step(status="SUCCEEDED")})
        with pytest.raises(RunInvalid, match=r"steps\.bad\.status"):
            look_at_rest(run)

    def test_a_missing_run_is_missing(self):
        """And no end."""
        assert look_at_rest(None).sight is Sight.MISSING

    def test_a_final_run_is_final_even_with_an_unreadable_step(self):
        """Nobody will mend it any more."""
        assert look_at_rest(run_of({"bad": chart_step(status="??")}, status="FAILED")).sight is Sight.FINAL

    @pytest.mark.parametrize(
        ("steps", "sight"),
        [
            ({"a": chart_step(status="SUCCEEDED"), "b": chart_step(status="PENDING")}, Sight.PENDING),
            ({"a": chart_step(dependsOn=["gone"])}, Sight.DEPENDS_ON),
            ({"a": chart_step(status="RUNNING")}, Sight.RUNNING),
            ({"a": chart_step(status="RUNNING"), "b": chart_step(status="PENDING")}, Sight.PENDING),
            ({"a": ohlcv_step(status="READY")}, Sight.FINAL),
            ({}, Sight.FINAL),
        ],
    )
    def test_a_waiting_step_is_what_there_is_to_say(self, steps, sight):
        """RUNNING ones of others don't hold the message."""
        assert look_at_rest(run_of(steps)).sight is sight


class TestLease:
    """The lease of a RUNNING step."""

    def test_none_is_unleased(self):
        """Some worker without leases runs it."""
        assert look_at_lease(None, now=NOON, message_id="m1", terms=TERMS).sight is Sight.UNLEASED

    def test_one_taken_under_another_message_makes_this_one_a_duplicate(self):
        """The holder's own message remains; its owner is named."""
        found = _lease_seen()
        assert (found.sight, found.wait_seconds) == (Sight.DUPLICATE, 0.0)
        assert "elsewhere:1:boot" in found.words

    def test_one_taken_under_this_message_is_worth_a_look_when_it_can_be_over(self):
        """After what is left of it, and the clock skew."""
        found = _lease_seen(message_id="another", left_seconds=40)
        assert (found.sight, found.wait_seconds) == (Sight.OWN_LEASE, 45.0)

    @pytest.mark.parametrize(
        ("left_seconds", "sight"),
        [(0.001, Sight.DUPLICATE), (-4.999, Sight.DUPLICATE), (-5, Sight.LEASE_OVER), (-9, Sight.LEASE_OVER)],
    )
    def test_one_that_nobody_released_is_over_only_after_the_clock_skew(self, left_seconds, sight):
        """Its holder's clock may be slow."""
        assert _lease_seen(left_seconds=left_seconds).sight is sight

    @pytest.mark.parametrize(("left_seconds", "sight"), [(0.001, Sight.DUPLICATE), (0, Sight.LEASE_OVER)])
    def test_one_that_was_released_is_over_at_its_time(self, left_seconds, sight):
        """Nobody holds it."""
        assert _lease_seen(left_seconds=left_seconds, token="", released=1).sight is sight

    def test_an_own_one_that_is_over_is_over(self):
        """Whoever took it is gone, this process's earlier life included."""
        assert _lease_seen(message_id="another", left_seconds=-6).sight is Sight.LEASE_OVER


class TestRunningSteps:
    """The steps whose leases are worth reading."""

    def test_chart_steps_that_run_are_named_in_order(self):
        """Others are not, nor those that can't be read."""
        steps = {
            "c": chart_step(status="RUNNING"),
            "a": chart_step(status="RUNNING"),
            "bad": chart_step(status="RUNNING", dependsOn="x"),
            "ready": chart_step(),
            "candles": ohlcv_step(status="RUNNING"),
        }
        assert running_steps(snapshot_of(run_of(steps))) == ["a", "c"]

    @pytest.mark.parametrize("run", [None, run_of({"a": chart_step(status="RUNNING")}, status="CANCELLED")])
    def test_a_run_that_is_missing_or_over_has_none(self, run):
        """Nothing is taken over there."""
        assert running_steps(snapshot_of(run)) == []
