"""The counts of claims and finalizes, and the facts that observers get."""

from __future__ import annotations

import pytest

from tests.support.ledger.observed_facts import Facts
from tests.support.ledger.samples import lease_of, run_with
from tests.support.metric_counts import counts
from worker_chart_export.ledger.decisions import ClaimResult, Reason
from worker_chart_export.ledger.result_log import log_claim, log_finalize, operators_of
from worker_chart_export.observability.observers import watched_by

RUN = run_with()
THEIRS = lease_of("theirs", attempt=3, released=0)


def _changed(call):
    """Return what a call counts."""
    before = counts()
    call()
    return {
        series: new - before.get(series, 0) for series, new in counts().items() if new != before.get(series)
    }


@pytest.mark.parametrize(
    ("result", "counted", "facts"),
    [
        (
            ClaimResult(claimed=True, status="RUNNING", run=RUN),
            {"claims_total{won}": 1},
            {"result": "won", "attempt": 4},
        ),
        (
            ClaimResult(claimed=True, status="RUNNING", run=RUN, taken_over=THEIRS),
            {"claims_total{taken_over}": 1},
            {"result": "taken_over", "attempt": 4, "formerOwner": "host:1:theirs"},
        ),
        (
            ClaimResult(claimed=False, status="FAILED", reason=Reason.STEP_FINAL),
            {"claims_total{step_final}": 1},
            {"result": "step_final"},
        ),
        (
            ClaimResult(claimed=False, status="FAILED", reason=Reason.CRASH_LOOP, taken_over=THEIRS),
            {"claims_total{crash_loop}": 1, "steps_finished_total{failed,CRASH_LOOP}": 1},
            {"result": "crash_loop", "formerOwner": "host:1:theirs"},
        ),
    ],
)
def test_a_claim_is_counted_by_its_result(result, counted, facts):
    """A claim that fails the step also counts as the step's end."""
    with watched_by(observer := Facts()):
        assert _changed(lambda: log_claim(result, 4 if result.claimed else None)) == counted
    assert observer.facts == facts


@pytest.mark.parametrize(
    ("updated", "reason", "result", "events"),
    [(True, None, "written", []), (False, Reason.FENCED, "fenced", ["finalize_refused"])],
)
def test_a_finalize_is_counted_by_its_result(log_lines, updated, reason, result, events):
    """Only a result that was not written is logged."""
    changed = _changed(lambda: log_finalize(updated=updated, reason=reason, status="RUNNING"))
    assert changed == {f"finalizes_total{{{result}}}": 1}
    assert [line["event"] for line in log_lines()] == events


@pytest.mark.parametrize(
    ("lease", "taken_over", "names"),
    [
        (None, None, {}),
        (lease_of(), lease_of("theirs"), {}),
        (lease_of(retried_by="a@b"), lease_of(released_by="c@d"), {"retriedBy": "a@b", "releasedBy": "c@d"}),
    ],
)
def test_the_operators_behind_a_claim(lease, taken_over, names):
    """The new lease says who retried the step, the old one who released it."""
    assert operators_of(lease, taken_over) == names
