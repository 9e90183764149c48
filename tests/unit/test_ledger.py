"""The worker's book of claims."""

from __future__ import annotations

import pytest

from localcloud import Fault
from tests.unit.doubles import NOON, RUN_ID, STEP_ID, HandClock, chart_step, run_document
from worker_chart_export.errors import BackendUnavailable, StepError
from worker_chart_export.ledger import Claim, StepLedger
from worker_chart_export.orchestration import FLOW_RUNS, Reason


@pytest.fixture
def run(documents):
    """The run's document reference; the run is there, its chart step READY."""
    reference = documents.collection(FLOW_RUNS).document(RUN_ID)
    reference.set(run_document())
    return reference


@pytest.fixture
def ledger(documents):
    """A ledger by a clock that stands at noon."""
    return StepLedger(client=documents, clock=HandClock())


def _step(run):
    return run.get().to_dict()["steps"][STEP_ID]


def _claimed(ledger: StepLedger) -> Claim:
    claim = ledger.claim(RUN_ID, STEP_ID)
    assert isinstance(claim, Claim)
    return claim


def test_a_claim_holds_the_run_the_step_and_its_start(ledger, run):
    """All that the work needs."""
    claim = _claimed(ledger)
    assert (claim.run.run_id, claim.step.step_id, claim.started_at) == (RUN_ID, STEP_ID, NOON)
    assert _step(run)["status"] == "RUNNING"


def test_a_claim_not_had_says_why(ledger, run):
    """As the orchestration decided."""
    run.update({f"steps.{STEP_ID}.status": "SUCCEEDED"})
    lost = ledger.claim(RUN_ID, STEP_ID)
    assert not isinstance(lost, Claim)
    assert lost.reason == Reason.STEP_FINAL


def test_claims_are_logged_won_or_lost(ledger, run, log_lines):
    """With the reason of a loss."""
    assert run.get().exists
    ledger.claim(RUN_ID, STEP_ID)
    ledger.claim(RUN_ID, STEP_ID)
    told = [(line["event"], line["claimed"], line.get("reason")) for line in log_lines()]
    assert told == [("claim_attempt", True, None), ("claim_attempt", False, "step_running")]


def test_a_success_is_written_with_microseconds(ledger, run):
    """The time marks whose patch it is."""
    assert ledger.succeed(_claimed(ledger), manifest_uri="gs://b/m").updated
    assert _step(run)["finishedAt"] == "2025-12-15T12:00:00.123456Z"


def test_a_refused_finalize_is_logged(ledger, run, log_lines):
    """With why."""
    claim = _claimed(ledger)
    run.update({f"steps.{STEP_ID}.status": "CANCELLED"})
    assert ledger.fail(claim, error=StepError("X", "m")).reason == Reason.STEP_FINAL
    line = log_lines()[-1]
    assert (line["event"], line["reason"], line["severity"]) == ("finalize_refused", "step_final", "WARNING")
    assert _step(run)["status"] == "CANCELLED"


def test_a_step_given_back_for_storage_fails_with_its_code(ledger, run):
    """It would stay RUNNING for ever."""
    result = ledger.give_back(_claimed(ledger), cause=BackendUnavailable("storage", "503"))
    assert result is not None
    assert result.updated
    assert _step(run)["error"]["code"] == "GCS_WRITE_FAILED"


def test_nothing_is_written_while_firestore_itself_is_away(ledger, run):
    """There is nowhere to write it."""
    assert ledger.give_back(_claimed(ledger), cause=BackendUnavailable("firestore", "503")) is None
    assert _step(run)["status"] == "RUNNING"


def test_an_error_of_a_foreign_answer_can_be_stored(ledger, run):
    """Lone surrogates and all."""
    error = StepError("CHART_API_FAILED", "bad \ud800", {"apiMessage": "\udfff"})
    assert ledger.fail(_claimed(ledger), error=error).updated
    assert _step(run)["error"] == {
        "code": "CHART_API_FAILED",
        "message": "bad ?",
        "details": {"apiMessage": "?"},
    }


def test_a_run_is_created_once(ledger, documents):
    """A second one of that id changes nothing."""
    assert ledger.create_run("new", {"steps": {}})
    assert not ledger.create_run("new", {"steps": {"s": chart_step()}})
    assert documents.collection(FLOW_RUNS).document("new").get().to_dict() == {"steps": {}}


def test_reading_a_run_that_is_away_is_told(ledger, cloud):
    """As unavailable."""
    cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED"))
    with pytest.raises(BackendUnavailable, match=r"^firestore is unavailable: ResourceExhausted"):
        ledger.read(RUN_ID)
