"""The state of a step from a read of its run and leases; pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.handling.step_state import (
    RescueAction,
    StepState,
    classify_lease,
    classify_run,
    classify_step,
    rescue_action,
    running_steps,
)
from tests.support.fakes import NOON, OHLCV_ID, STEP_ID, chart_step, lease_of, ohlcv_step, run_of, snapshot_of
from worker_chart_export.errors import RunInvalid
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.lease import LeaseTerms, StoredLease

TERMS = LeaseTerms(clock_skew_seconds=5)


def _one(**step):
    return run_of({OHLCV_ID: ohlcv_step(), STEP_ID: chart_step(**step)})


def _lease_seen(*, message_id="m1", **lease):
    stored = StoredLease(lease=lease_of(**lease), update_time=NOON)
    return classify_lease(stored, now=NOON, message_id=message_id, terms=TERMS)


class TestStep:
    """A step that the message names."""

    @pytest.mark.parametrize("status", StepStatus)
    def test_every_status_has_a_state(self, status):
        """Every status of a chart step has a state."""
        expected = "final" if status.is_final else status.value.lower()
        assert classify_step(_one(status=status.value), STEP_ID).state == expected

    @pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "CANCELLED"])
    def test_a_final_run_makes_every_step_final(self, status):
        """In a final run every step is final."""
        assert classify_step(run_of(status=status), STEP_ID).state is StepState.FINAL

    @pytest.mark.parametrize("step_status", ["READY", "RUNNING", "SUCCEEDED"])
    def test_another_type_is_another_type_in_any_status(self, step_status):
        """A step of another type has that state in any status."""
        run = run_of({"s": ohlcv_step(status=step_status)})
        assert classify_step(run, "s").state is StepState.OTHER_TYPE

    def test_unmet_dependencies_are_named(self):
        """Unmet dependencies are named."""
        found = classify_step(_one(dependsOn=[OHLCV_ID, "gone", "late"]), STEP_ID)
        assert (found.state, found.description) == (
            StepState.DEPENDS_ON,
            "dependsOn not SUCCEEDED: gone, late",
        )

    def test_a_dependency_that_was_skipped_is_not_met(self):
        """A skipped dependency is not met; only SUCCEEDED counts."""
        run = run_of({OHLCV_ID: ohlcv_step(status="SKIPPED"), STEP_ID: chart_step()})
        assert classify_step(run, STEP_ID).state is StepState.DEPENDS_ON

    def test_the_dependencies_of_a_running_step_are_ignored(self):
        """A RUNNING step is running whatever its dependencies, because its lease decides."""
        assert classify_step(_one(status="RUNNING", dependsOn=["gone"]), STEP_ID).state is StepState.RUNNING

    def test_a_missing_run_or_step_is_named(self):
        """A missing run and a missing step are named."""
        assert classify_step(None, STEP_ID).description == "the run does not exist"
        assert classify_step(run_of(), "gone").description == "no such step"

    def test_an_unreadable_step_is_reported(self):
        """An unreadable step is reported with its field."""
        with pytest.raises(RunInvalid, match=r"steps\.charts:1d:main\.status"):
            classify_step(_one(status="??"), STEP_ID)


class TestRest:
    """A run without an eligible step."""

    def test_an_unreadable_step_makes_the_run_invalid(self):
        """An unreadable step makes the run invalid, because a person must correct it."""
        run = run_of({"bad": chart_step(status="??"), "done": chart_step(status="SUCCEEDED")})
        with pytest.raises(RunInvalid, match=r"steps\.bad\.status"):
            classify_run(run)

    def test_a_missing_run_is_missing(self):
        """A missing run is missing and not final."""
        assert classify_run(None).state is StepState.MISSING

    def test_a_final_run_is_final_even_with_an_unreadable_step(self):
        """A final run is final even with an unreadable step."""
        assert (
            classify_run(run_of({"bad": chart_step(status="??")}, status="FAILED")).state is StepState.FINAL
        )

    @pytest.mark.parametrize(
        ("steps", "state"),
        [
            ({"a": chart_step(status="SUCCEEDED"), "b": chart_step(status="PENDING")}, StepState.PENDING),
            ({"a": chart_step(dependsOn=["gone"])}, StepState.DEPENDS_ON),
            ({"a": chart_step(status="RUNNING")}, StepState.RUNNING),
            ({"a": chart_step(status="RUNNING"), "b": chart_step(status="PENDING")}, StepState.PENDING),
            ({"a": ohlcv_step(status="READY")}, StepState.FINAL),
            ({}, StepState.FINAL),
        ],
    )
    def test_a_waiting_step_is_reported(self, steps, state):
        """A waiting step is reported, and RUNNING steps of others are not."""
        assert classify_run(run_of(steps)).state is state


class TestLease:
    """The lease of a RUNNING step."""

    def test_a_running_step_without_a_lease_is_unleased(self):
        """A RUNNING step without a lease is unleased, because its worker keeps none."""
        assert classify_lease(None, now=NOON, message_id="m1", terms=TERMS).state is StepState.UNLEASED

    def test_a_lease_of_another_message_makes_this_one_a_duplicate(self):
        """A lease of another message makes this one a duplicate, and its owner is named."""
        found = _lease_seen()
        assert (found.state, found.wait_seconds) == (StepState.DUPLICATE, 0.0)
        assert "elsewhere:1:boot" in found.description

    def test_one_of_this_message_defers_it_until_the_lease_can_be_over(self):
        """A lease of this message defers it until the lease's end plus the clock skew."""
        found = _lease_seen(message_id="another", left_seconds=40)
        assert (found.state, found.wait_seconds) == (StepState.OWN_LEASE, 45.0)

    @pytest.mark.parametrize(
        ("left_seconds", "state"),
        [
            (0.001, StepState.DUPLICATE),
            (-4.999, StepState.DUPLICATE),
            (-5, StepState.LEASE_EXPIRED),
            (-9, StepState.LEASE_EXPIRED),
        ],
    )
    def test_one_that_was_not_released_expires_after_the_clock_skew(self, left_seconds, state):
        """A lease that was not released expires only after the clock skew."""
        assert _lease_seen(left_seconds=left_seconds).state is state

    @pytest.mark.parametrize(
        ("left_seconds", "state"), [(0.001, StepState.DUPLICATE), (0, StepState.LEASE_EXPIRED)]
    )
    def test_one_that_was_released_expires_at_its_end(self, left_seconds, state):
        """A released lease expires at its end, because it has no holder."""
        assert _lease_seen(left_seconds=left_seconds, token="", released=1).state is state

    def test_an_own_expired_one_has_expired(self):
        """An expired lease of this process counts as expired, because its work has ended."""
        assert _lease_seen(message_id="another", left_seconds=-6).state is StepState.LEASE_EXPIRED


class TestRescue:
    """What the rescue does with a lease that has expired."""

    @pytest.mark.parametrize(
        ("run", "lease", "action"),
        [
            (_one(status="RUNNING"), lease_of(left_seconds=-5), RescueAction.TAKE_OVER),
            (_one(status="RUNNING"), lease_of(left_seconds=-4.5), RescueAction.LEAVE),
            (_one(status="RUNNING"), None, RescueAction.LEAVE),
            (_one(status="SUCCEEDED"), lease_of(left_seconds=-5), RescueAction.DELETE),
            (None, lease_of(left_seconds=-5), RescueAction.DELETE),
            (None, None, RescueAction.LEAVE),
            (run_of({STEP_ID: ohlcv_step(status="RUNNING")}), lease_of(left_seconds=-5), RescueAction.LEAVE),
        ],
    )
    def test_the_lease_and_the_step_decide(self, run, lease, action):
        """Steps of other types are left to their own workers."""
        snapshot = snapshot_of(run, **{STEP_ID: lease})
        assert rescue_action(snapshot, STEP_ID, terms=TERMS) is action

    def test_without_the_server_s_time_nothing_is_done(self):
        """The time of this machine may be wrong."""
        snapshot = replace(snapshot_of(None, **{STEP_ID: lease_of(left_seconds=-5)}), read_time=None)
        assert rescue_action(snapshot, STEP_ID, terms=TERMS) is RescueAction.LEAVE


class TestRunningSteps:
    """The steps whose leases must be read."""

    def test_chart_steps_that_run_are_named_in_order(self):
        """RUNNING chart steps are named in order; other and unreadable steps are not."""
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
        """A missing or final run has no such steps, because nothing is taken over there."""
        assert running_steps(snapshot_of(run)) == []
