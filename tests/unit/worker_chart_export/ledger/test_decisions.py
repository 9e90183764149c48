"""Whether the run allows a claim or a finalize of a step."""

from __future__ import annotations

import pytest

from tests.support.fakes import OHLCV_ID, STEP_ID, chart_step, ohlcv_step, run_of
from tests.support.ledger.samples import FINISHED, S
from worker_chart_export.errors import RunInvalid
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.decisions import FinalizeResult, Reason, decide_claim, decide_finalize


class TestClaimDecision:
    """Whether the run allows a claim of a step."""

    def test_a_ready_step_may_be_claimed(self):
        """A READY step with succeeded dependencies may be claimed."""
        verdict = decide_claim(run_of(), STEP_ID)
        assert (verdict.claimed, verdict.status, verdict.reason) == (True, "RUNNING", None)

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            ("RUNNING", Reason.STEP_RUNNING),
            ("PENDING", Reason.STEP_PENDING),
            ("SUCCEEDED", Reason.STEP_FINAL),
            ("FAILED", Reason.STEP_FINAL),
            ("SKIPPED", Reason.STEP_FINAL),
            ("CANCELLED", Reason.STEP_FINAL),
        ],
    )
    def test_only_ready_may_be_claimed(self, status, reason):
        """Only READY may be claimed; the refusal has the current status."""
        verdict = decide_claim(run_of({STEP_ID: chart_step(status=status, dependsOn=[])}), STEP_ID)
        assert (verdict.claimed, verdict.status, verdict.reason) == (False, status, reason)

    def test_another_worker_s_step_is_never_claimed(self):
        """A step of another type is refused for every caller; one without a type is accepted."""
        foreign = run_of({STEP_ID: chart_step(stepType="OHLCV_EXPORT", dependsOn=[])})
        assert decide_claim(foreign, STEP_ID).reason == Reason.OTHER_TYPE
        untyped = run_of({STEP_ID: chart_step(stepType=None, dependsOn=[])})
        assert decide_claim(untyped, STEP_ID).claimed

    @pytest.mark.parametrize("step_type", ["LLM_REPORT", None])
    def test_a_caller_claims_its_own_type_or_any(self, step_type):
        """A worker of another type claims its steps and no others; without a type it claims all."""
        run = run_of({S: chart_step(stepType="LLM_REPORT", dependsOn=[]), "c": chart_step(dependsOn=[])})
        assert decide_claim(run, S, step_type=step_type).claimed
        refused = decide_claim(run, "c", step_type=step_type)
        assert refused.reason == (Reason.OTHER_TYPE if step_type else None)

    def test_a_missing_run_differs_from_a_missing_step(self):
        """A missing run and a missing step have different reasons and no status."""
        assert decide_claim(None, STEP_ID).reason == Reason.RUN_MISSING
        run = run_of()
        assert decide_claim(run, "gone").reason == Reason.STEP_MISSING
        assert decide_claim(run, "gone").run is run  # the log line names its flow
        assert decide_claim(run_of(), "gone").status is None

    @pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "CANCELLED"])
    def test_a_final_run_refuses(self, status):
        """A final run refuses claims."""
        verdict = decide_claim(run_of(status=status), STEP_ID)
        assert (verdict.claimed, verdict.status, verdict.reason) == (False, "READY", Reason.RUN_FINAL)

    @pytest.mark.parametrize("status", sorted(set(StepStatus) - {"SUCCEEDED"}))
    def test_dependencies_are_checked_again(self, status):
        """All dependencies must be SUCCEEDED; SKIPPED does not count."""
        run = run_of({OHLCV_ID: ohlcv_step(status=status), STEP_ID: chart_step()})
        assert decide_claim(run, STEP_ID).reason == Reason.DEPENDS_ON

    def test_a_step_that_can_t_be_read_is_an_error(self):
        """A step that can't be read raises an error and is not a lost claim."""
        with pytest.raises(RunInvalid):
            decide_claim(run_of({STEP_ID: chart_step(status="??")}), STEP_ID)


class TestFinalizeDecision:
    """Whether the run allows a finalize of a step."""

    @pytest.mark.parametrize("unknown", [True, False])
    def test_a_running_step_may_be_finalized(self, unknown):
        """A RUNNING step may be finalized, also after a commit that was not applied."""
        run = run_of({STEP_ID: chart_step(status="RUNNING")})
        assert decide_finalize(run, STEP_ID, finished_at=FINISHED, outcome_unknown=unknown) is None

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            ("READY", Reason.NOT_RUNNING),
            ("PENDING", Reason.NOT_RUNNING),
            ("SUCCEEDED", Reason.STEP_FINAL),
            ("FAILED", Reason.STEP_FINAL),
            ("SKIPPED", Reason.STEP_FINAL),
            ("CANCELLED", Reason.STEP_FINAL),
        ],
    )
    def test_any_other_status_refuses(self, status, reason):
        """Any other status refuses the finalize and stays."""
        run = run_of({STEP_ID: chart_step(status=status)})
        verdict = decide_finalize(run, STEP_ID, finished_at=FINISHED, outcome_unknown=False)
        assert verdict == FinalizeResult(updated=False, status=status, reason=reason)

    @pytest.mark.parametrize(
        ("finished_at", "unknown", "updated"),
        [(FINISHED, True, True), (FINISHED, False, False), ("2025-12-15T12:00:00Z", True, False)],
    )
    def test_our_own_mark_counts_only_after_an_unknown_outcome(self, finished_at, unknown, updated):
        """Our own finishing time counts only after an unknown outcome, because times can be equal."""
        run = run_of({STEP_ID: chart_step(status="SUCCEEDED", finishedAt=finished_at)})
        verdict = decide_finalize(run, STEP_ID, finished_at=FINISHED, outcome_unknown=unknown)
        assert verdict is not None
        assert verdict.updated is updated

    def test_a_missing_run_differs_from_a_missing_step(self):
        """A missing run and a missing step have different reasons."""
        for run, reason in ((None, Reason.RUN_MISSING), (run_of({}), Reason.STEP_MISSING)):
            verdict = decide_finalize(run, STEP_ID, finished_at=FINISHED, outcome_unknown=False)
            assert verdict == FinalizeResult(updated=False, status=None, reason=reason)
