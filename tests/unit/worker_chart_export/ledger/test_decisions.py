"""Whether a step may be claimed or finalized, by what the run alone says."""

from __future__ import annotations

import pytest

from tests.support.fakes import OHLCV_ID, STEP_ID, chart_step, ohlcv_step, run_of
from tests.support.ledger.samples import FINISHED
from worker_chart_export.errors import RunInvalid
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.decisions import FinalizeResult, Reason, decide_claim, decide_finalize


class TestClaimDecision:
    """Whether a step may be claimed, by what the run says."""

    def test_a_ready_step_may_be_claimed(self):
        """Its dependencies have succeeded."""
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
        """The status that stands is told."""
        verdict = decide_claim(run_of({STEP_ID: chart_step(status=status, dependsOn=[])}), STEP_ID)
        assert (verdict.claimed, verdict.status, verdict.reason) == (False, status, reason)

    def test_another_worker_s_step_is_never_claimed(self):
        """Whoever asks; a step without any type is taken on trust, as minimal documents have none."""
        foreign = run_of({STEP_ID: chart_step(stepType="OHLCV_EXPORT", dependsOn=[])})
        assert decide_claim(foreign, STEP_ID).reason == Reason.OTHER_TYPE
        untyped = run_of({STEP_ID: chart_step(stepType=None, dependsOn=[])})
        assert decide_claim(untyped, STEP_ID).claimed

    def test_a_missing_run_is_told_from_a_missing_step(self):
        """Neither has a status."""
        assert decide_claim(None, STEP_ID).reason == Reason.RUN_MISSING
        assert decide_claim(run_of(), "gone").reason == Reason.STEP_MISSING
        assert decide_claim(run_of(), "gone").status is None

    @pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "CANCELLED"])
    def test_a_final_run_refuses(self, status):
        """Nobody would read the charts."""
        verdict = decide_claim(run_of(status=status), STEP_ID)
        assert (verdict.claimed, verdict.status, verdict.reason) == (False, "READY", Reason.RUN_FINAL)

    @pytest.mark.parametrize("status", sorted(set(StepStatus) - {"SUCCEEDED"}))
    def test_dependencies_are_checked_again(self, status):
        """All must be SUCCEEDED, SKIPPED does not count."""
        run = run_of({OHLCV_ID: ohlcv_step(status=status), STEP_ID: chart_step()})
        assert decide_claim(run, STEP_ID).reason == Reason.DEPENDS_ON

    def test_a_step_that_can_t_be_read_is_an_error(self):
        """Not a lost claim."""
        with pytest.raises(RunInvalid):
            decide_claim(run_of({STEP_ID: chart_step(status="??")}), STEP_ID)


class TestFinalizeDecision:
    """Whether a finalize may be committed, by what the run says."""

    @pytest.mark.parametrize("unknown", [True, False])
    def test_a_running_step_may_be_finalized(self, unknown):
        """Also after a commit that got no answer and did not land."""
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
        """The step is left as it is."""
        run = run_of({STEP_ID: chart_step(status=status)})
        verdict = decide_finalize(run, STEP_ID, finished_at=FINISHED, outcome_unknown=False)
        assert verdict == FinalizeResult(updated=False, status=status, reason=reason)

    @pytest.mark.parametrize(
        ("finished_at", "unknown", "updated"),
        [(FINISHED, True, True), (FINISHED, False, False), ("2025-12-15T12:00:00Z", True, False)],
    )
    def test_our_own_mark_counts_only_after_an_unknown_outcome(self, finished_at, unknown, updated):
        """A time that happens to be equal proves nothing by itself."""
        run = run_of({STEP_ID: chart_step(status="SUCCEEDED", finishedAt=finished_at)})
        verdict = decide_finalize(run, STEP_ID, finished_at=FINISHED, outcome_unknown=unknown)
        assert verdict is not None
        assert verdict.updated is updated

    def test_a_missing_run_is_told_from_a_missing_step(self):
        """Both leave nothing to write to."""
        for run, reason in ((None, Reason.RUN_MISSING), (run_of({}), Reason.STEP_MISSING)):
            verdict = decide_finalize(run, STEP_ID, finished_at=FINISHED, outcome_unknown=False)
            assert verdict == FinalizeResult(updated=False, status=None, reason=reason)
