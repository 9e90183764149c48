"""Decisions about claims and finalizes, the patches they write, and how those are committed."""

from __future__ import annotations

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.cloud import firestore
from google.cloud.firestore_v1.field_path import FieldPath
from hypothesis import given
from hypothesis import strategies as st

from localcloud import Fault
from tests.unit.doubles import OHLCV_ID, RUN_ID, STEP_ID, chart_step, ohlcv_step, run_document, run_of
from worker_chart_export import conditional_commit
from worker_chart_export.errors import BackendRefused, BackendUnavailable, RunInvalid
from worker_chart_export.flow_run import StepStatus
from worker_chart_export.identifiers import why_step_id_refused
from worker_chart_export.orchestration import (
    FinalizeResult,
    Reason,
    StepError,
    build_claim_update,
    build_finalize_failure_update,
    build_finalize_success_update,
    claim_step_transaction,
    decide_claim,
    decide_finalize,
    finalize_step,
    read_run,
)

FINISHED = "2025-12-15T12:00:00.123456Z"
MANIFEST = "gs://b/charts/r/s/manifest.json"
ERROR = StepError("VALIDATION_FAILED", "bad input", {"field": "x"})
#: The closed step object of contract section 3.
CLOSED_FIELDS = {"status", "finishedAt", "outputs.outputsManifestGcsUri", "outputs.gcs_uri", "error"}
STEP_IDS = st.text(min_size=1, max_size=60).filter(lambda text: why_step_id_refused(text) is None)
ODD_STEP_IDS = [
    "charts:1M:ctpl",
    "with space",
    "qu\"o'te",
    "back\\slash",
    "ünï→",
    "%2e%2F",
    "#?&=+",
    "1",
    "-",
    "$a{b}",
]


def _success(step_id: str) -> dict[str, object]:
    return build_finalize_success_update(
        step_id=step_id, finished_at=FINISHED, outputs_manifest_gcs_uri=MANIFEST
    )


def _failure(step_id: str) -> dict[str, object]:
    return build_finalize_failure_update(step_id=step_id, finished_at=FINISHED, error=ERROR)


class TestPatches:
    """The pure builders."""

    def test_a_claim_writes_the_status_alone(self):
        """Nothing about who or when."""
        assert build_claim_update("s") == {"steps.s.status": "RUNNING"}

    def test_a_success_names_the_manifest_twice_and_deletes_a_stale_error(self):
        """Under its old and its new key."""
        assert _success("s") == {
            "steps.s.status": "SUCCEEDED",
            "steps.s.finishedAt": FINISHED,
            "steps.s.outputs.outputsManifestGcsUri": MANIFEST,
            "steps.s.outputs.gcs_uri": MANIFEST,
            "steps.s.error": firestore.DELETE_FIELD,
        }

    def test_a_failure_leaves_the_outputs_alone(self):
        """Its manifest stands in the error."""
        assert _failure("s") == {
            "steps.s.status": "FAILED",
            "steps.s.finishedAt": FINISHED,
            "steps.s.error": {"code": "VALIDATION_FAILED", "message": "bad input", "details": {"field": "x"}},
        }

    def test_a_failure_holds_the_error_as_it_is_stored(self):
        """Cut to its limits."""
        patch = build_finalize_failure_update(
            step_id="s", finished_at=FINISHED, error=StepError("X", "x" * 600, {"a": "b" * 5000})
        )
        assert len(patch["steps.s.error"]["message"]) == 500

    @given(STEP_IDS)
    def test_patches_hold_only_fields_of_the_closed_step_object(self, step_id):
        """For any legal step id, and never the whole steps map."""
        for patch in (build_claim_update(step_id), _success(step_id), _failure(step_id)):
            paths = [FieldPath.from_string(key).parts for key in patch]
            assert {path[:2] for path in paths} == {("steps", step_id)}
            assert {".".join(path[2:]) for path in paths} <= CLOSED_FIELDS

    @pytest.mark.parametrize("step_id", ["a.b", "a/b", "a`b", "", "__x__", "a\n"])
    def test_an_illegal_step_id_is_never_made_a_path(self, step_id):
        """It would write elsewhere in the document."""
        for build in (build_claim_update, _success, _failure):
            with pytest.raises(ValueError, match=r"^stepId: expected"):
                build(step_id)

    def test_the_calls_take_what_the_contract_says(self):
        """Keyword arguments alone, `lease` among them."""
        for call in (claim_step_transaction, finalize_step):
            parameters = inspect.signature(call).parameters
            assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
            assert parameters["lease"].default is None


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


class Book:
    """One run in Firestore, with the two calls under test bound to it."""

    def __init__(self, client: firestore.Client, run_id: str = RUN_ID) -> None:
        self.client = client
        self.run_id = run_id
        self.reference = client.collection("flow_runs").document(run_id)

    def put(self, steps=None, **changes):
        """Write the run anew."""
        self.reference.set(run_document(steps, **changes))
        return self

    def step(self, step_id=STEP_ID):
        """The step as it is now."""
        return self.reference.get().to_dict()["steps"][step_id]

    def claim(self, step_id=STEP_ID):
        """Claim it."""
        return claim_step_transaction(client=self.client, run_id=self.run_id, step_id=step_id)

    def succeed(self, step_id=STEP_ID, finished_at=FINISHED):
        """Finalize it as SUCCEEDED."""
        return finalize_step(
            client=self.client,
            run_id=self.run_id,
            step_id=step_id,
            status="SUCCEEDED",
            finished_at=finished_at,
            outputs_manifest_gcs_uri=MANIFEST,
        )

    def fail(self, step_id=STEP_ID):
        """Finalize it as FAILED."""
        return finalize_step(
            client=self.client,
            run_id=self.run_id,
            step_id=step_id,
            status="FAILED",
            finished_at=FINISHED,
            error=ERROR,
        )


@pytest.fixture
def shared_book(shared_documents, new_run_id):
    """A run of its own on the session's cloud."""
    return Book(shared_documents, new_run_id).put()


@pytest.fixture
def book(documents):
    """A run on a cloud of its own, for faults."""
    return Book(documents).put()


RUNNING = {STEP_ID: chart_step(status="RUNNING", dependsOn=[])}


class TestCommitted:
    """With Google's client on Firestore."""

    @pytest.mark.parametrize("step_id", ODD_STEP_IDS)
    def test_odd_step_ids_are_claimed_and_finalized_in_their_place(self, shared_book, step_id):
        """The steps map keeps its keys, all of them."""
        shared_book.put({step_id: chart_step(dependsOn=[]), "other": chart_step()})
        assert shared_book.claim(step_id).claimed
        assert shared_book.step(step_id)["status"] == "RUNNING"
        assert shared_book.succeed(step_id).updated
        steps = shared_book.reference.get().to_dict()["steps"]
        assert set(steps) == {step_id, "other"}
        assert steps[step_id]["outputs"]["gcs_uri"] == MANIFEST
        assert steps["other"] == chart_step()

    def test_a_claim_changes_nothing_else(self, shared_book):
        """Neither in the step nor in the run."""
        assert shared_book.claim().claimed
        expected = run_document()
        expected["steps"][STEP_ID]["status"] = "RUNNING"
        assert shared_book.reference.get().to_dict() == expected

    def test_siblings_in_outputs_survive_a_success_and_a_stale_error_does_not(self, shared_book):
        """What others wrote there is theirs."""
        shared_book.put(
            {
                STEP_ID: chart_step(
                    status="RUNNING", outputs={"others": [1]}, error={"code": "OLD", "message": "old"}
                )
            }
        )
        assert shared_book.succeed() == FinalizeResult(updated=True, status="SUCCEEDED")
        assert shared_book.step() == chart_step(
            status="SUCCEEDED",
            finishedAt=FINISHED,
            outputs={"others": [1], "outputsManifestGcsUri": MANIFEST, "gcs_uri": MANIFEST},
        )

    def test_a_failure_keeps_the_outputs(self, shared_book):
        """Also those of an earlier success."""
        shared_book.put({STEP_ID: chart_step(status="RUNNING", outputs={"gcs_uri": "gs://old"})})
        assert shared_book.fail().updated
        step = shared_book.step()
        assert (step["status"], step["error"]["code"]) == ("FAILED", "VALIDATION_FAILED")
        assert step["outputs"] == {"gcs_uri": "gs://old"}

    def test_a_second_claim_and_a_second_finalize_change_nothing(self, shared_book):
        """Safe to repeat."""
        assert [shared_book.claim().claimed for _ in range(2)] == [True, False]
        assert [shared_book.succeed(finished_at=at).updated for at in ("1", "2")] == [True, False]
        assert shared_book.step()["finishedAt"] == "1"

    def test_the_loser_of_a_claim_hears_why(self, shared_book):
        """The step runs already."""
        shared_book.claim()
        again = shared_book.claim()
        assert (again.claimed, again.status, again.reason) == (False, "RUNNING", Reason.STEP_RUNNING)

    def test_a_missing_run_is_no_error(self, shared_documents):
        """And none is made."""
        absent = Book(shared_documents, "absent")
        assert absent.claim().reason == Reason.RUN_MISSING
        assert absent.succeed().reason == Reason.RUN_MISSING
        assert read_run(client=shared_documents, run_id="absent") is None
        assert absent.reference.get().exists is False

    def test_racing_claims_have_one_winner(self, shared_book):
        """Over many rounds, with all starting at once."""
        for _ in range(15):
            shared_book.put()
            start = threading.Barrier(4)

            def race(start: threading.Barrier = start) -> bool:
                start.wait()
                return shared_book.claim().claimed

            with ThreadPoolExecutor(4) as pool:
                assert sorted(pool.map(lambda _n: race(), range(4))) == [False, False, False, True]

    def test_racing_finalizes_have_one_winner(self, shared_book):
        """Whose mark is the one that stands."""
        for _ in range(15):
            shared_book.put(RUNNING)
            start = threading.Barrier(3)

            def race(mark: str, start: threading.Barrier = start) -> str | None:
                start.wait()
                return mark if shared_book.succeed(finished_at=mark).updated else None

            with ThreadPoolExecutor(3) as pool:
                won = [mark for mark in pool.map(race, ["1", "2", "3"]) if mark]
            assert won == [shared_book.step()["finishedAt"]]

    def test_steps_of_one_run_don_t_lose_each_other_s_writes(self, shared_book):
        """They share a document, and each commit guards all of it."""
        names = [f"s{number}" for number in range(8)]
        shared_book.put({name: chart_step(dependsOn=[]) for name in names})
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda name: shared_book.claim(name).claimed, names))
            assert all(pool.map(lambda name: shared_book.succeed(name).updated, names))
        assert {shared_book.step(name)["status"] for name in names} == {"SUCCEEDED"}

    @pytest.mark.parametrize(
        ("status", "manifest", "error"),
        [
            ("SUCCEEDED", None, None),
            ("SUCCEEDED", None, ERROR),
            ("FAILED", MANIFEST, None),
            ("READY", MANIFEST, ERROR),
        ],
    )
    def test_a_status_without_its_companion_is_a_mistake_of_the_caller(self, status, manifest, error):
        """Nothing is read or written."""
        with pytest.raises(ValueError, match=r"expected SUCCEEDED with"):
            finalize_step(
                client=None,
                run_id=RUN_ID,
                step_id=STEP_ID,
                status=status,
                finished_at=FINISHED,
                outputs_manifest_gcs_uri=manifest,
                error=error,
            )


class TestFaults:
    """What Firestore and other writers may do in between."""

    def test_a_lost_race_is_read_and_decided_again(self, book, cloud):
        """A foreign writer touched the run three times; the fourth commit stands."""
        cloud.firestore.faults.add(Fault(method="Commit", contend=True, times=3))
        assert book.claim().claimed
        assert book.step()["status"] == "RUNNING"

    def test_a_race_lost_to_another_claim_is_lost(self, book, cloud):
        """The step became RUNNING between our read and our commit."""
        other = Fault(method="Commit", before=lambda _request: rival.put(RUNNING), times=1)
        rival = Book(book.client)
        cloud.firestore.faults.add(other)
        outcome = book.claim()
        assert (outcome.claimed, outcome.reason) == (False, Reason.STEP_RUNNING)

    def test_a_dependency_undone_in_between_is_seen(self, book, cloud):
        """The commit's precondition proves all that was decided by."""
        steps = {OHLCV_ID: ohlcv_step(status="FAILED"), STEP_ID: chart_step()}
        cloud.firestore.faults.add(Fault(method="Commit", before=lambda _request: book.put(steps), times=1))
        assert book.claim().reason == Reason.DEPENDS_ON
        assert book.step()["status"] == "READY"

    def test_a_run_deleted_in_between_is_missing(self, book, cloud):
        """And is not made again by the commit."""
        cloud.firestore.faults.add(
            Fault(method="Commit", before=lambda _request: book.reference.delete(), times=1)
        )
        assert book.claim().reason == Reason.RUN_MISSING
        assert book.reference.get().exists is False

    def test_endless_contention_ends_as_unavailable(self, book, cloud, monkeypatch):
        """The caller tries later."""
        monkeypatch.setattr(conditional_commit, "GIVE_UP_AFTER_SECONDS", 0.2)
        cloud.firestore.faults.add(Fault(method="Commit", contend=True))
        with pytest.raises(BackendUnavailable):
            book.claim()
        assert book.step()["status"] == "READY"

    def test_a_contended_commit_that_is_aborted_is_tried_again(self, book, cloud):
        """Nothing was written."""
        cloud.firestore.faults.add(Fault(method="Commit", error="ABORTED", times=2))
        assert book.claim().claimed

    @pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"])
    def test_a_finalize_that_landed_without_an_answer_has_won(self, book, cloud, status):
        """Its own mark stands in the step."""
        book.put(RUNNING)
        cloud.firestore.faults.add(Fault(method="Commit", error=status, after_effect=True, times=1))
        assert book.succeed() == FinalizeResult(updated=True, status="SUCCEEDED")
        assert cloud.firestore.calls["Commit"] - 2 == 1  # the fixture and `put` made the other two

    @pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED"])
    def test_a_finalize_that_did_not_land_is_made_again(self, book, cloud, status):
        """The step is still RUNNING when it is read again."""
        book.put(RUNNING)
        cloud.firestore.faults.add(Fault(method="Commit", error=status, times=1))
        assert book.fail().updated
        assert book.step()["status"] == "FAILED"

    def test_a_finalize_that_another_made_after_an_unknown_outcome_is_lost(self, book, cloud):
        """The mark there is not ours."""
        book.put(RUNNING)
        other = {STEP_ID: chart_step(status="SUCCEEDED", finishedAt="2025-12-15T11:00:00Z")}
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", times=1))
        cloud.firestore.faults.add(
            Fault(method="BatchGetDocuments", before=lambda _request: book.put(other), skip=1, times=1)
        )
        assert book.succeed().reason == Reason.STEP_FINAL

    def test_a_claim_that_did_not_land_is_made_again(self, book, cloud):
        """READY after an unknown outcome is READY."""
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", times=1))
        assert book.claim().claimed
        assert book.step()["status"] == "RUNNING"

    def test_a_claim_that_landed_without_an_answer_is_not_counted_as_won(self, book, cloud):
        """Without a lease it can't be told from somebody else's."""
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", after_effect=True, times=1))
        with pytest.raises(BackendUnavailable, match=r"it is unknown whether the claim was committed"):
            book.claim()

    def test_the_client_itself_never_repeats_a_commit(self, book, cloud):
        """Its own retry of Unavailable would turn a commit that landed into a lost race."""
        cloud.firestore.calls.reset()
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", after_effect=True, times=1))
        with pytest.raises(BackendUnavailable):
            book.claim()
        assert cloud.firestore.calls["Commit"] == 1

    @pytest.mark.parametrize("method", ["BatchGetDocuments", "Commit"])
    def test_a_refusal_is_not_tried_again(self, book, cloud, method):
        """Somebody has to change something first."""
        cloud.firestore.calls.reset()
        cloud.firestore.faults.add(Fault(method=method, error="PERMISSION_DENIED"))
        with pytest.raises(BackendRefused, match=r"firestore refused"):
            book.claim()
        assert cloud.firestore.calls[method] == 1

    def test_a_read_is_repeated_while_firestore_is_away_for_a_moment(self, book, cloud):
        """Reads are safe to repeat."""
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="UNAVAILABLE", times=2))
        assert book.claim().claimed

    def test_a_finalize_outlasts_reads_that_fail(self, book, cloud):
        """The charts are made and paid for, and nobody would finalize the step instead."""
        book.put(RUNNING)
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED", times=3))
        assert book.succeed().updated

    def test_a_firestore_that_stays_away_is_told(self, book, cloud, monkeypatch):
        """Once the time for it is over."""
        monkeypatch.setattr(conditional_commit, "GIVE_UP_AFTER_SECONDS", 0.2)
        cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error="RESOURCE_EXHAUSTED"))
        with pytest.raises(BackendUnavailable, match=r"^firestore is unavailable: .*injected fault"):
            book.claim()

    def test_a_run_that_can_t_be_read_is_an_error_of_the_run(self, book):
        """Neither lost nor away."""
        book.put(status="??")
        with pytest.raises(RunInvalid):
            book.claim()
