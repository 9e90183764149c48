"""The patches of a flow run, and the known run after a patch."""

from __future__ import annotations

import pytest
from google.cloud import firestore
from google.cloud.firestore_v1.field_path import FieldPath
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import chart_step, run_document
from tests.support.ledger.samples import FINISHED, MANIFEST
from worker_chart_export.errors import StepError
from worker_chart_export.inputs.flow_run import FlowRun, why_step_id_refused
from worker_chart_export.ledger.decisions import (
    build_claim_update,
    build_failed_status_update,
    build_finalize_failure_update,
    build_finalize_success_update,
    build_success_update,
    patched,
)

ERROR = StepError("VALIDATION_FAILED", "bad input", {"field": "x", "list": (1, 2), "map": {"a": None}})
STORED_DETAILS = {"field": "x", "list": [1, 2], "map": {"a": None}}
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
    """The pure builders of patches."""

    def test_a_claim_writes_the_status_alone(self):
        """A claim writes only the status."""
        assert build_claim_update("s") == {"steps.s.status": "RUNNING"}

    def test_a_failure_that_has_no_room_for_its_error_writes_the_status_alone(self):
        """An old error and its time would be those of another failure."""
        assert build_failed_status_update("s") == {
            "steps.s.status": "FAILED",
            "steps.s.finishedAt": firestore.DELETE_FIELD,
            "steps.s.error": firestore.DELETE_FIELD,
        }

    def test_a_success_names_the_manifest_twice_and_deletes_a_stale_error(self):
        """A success names the manifest under its old and its new key and deletes an old error."""
        assert _success("s") == {
            "steps.s.status": "SUCCEEDED",
            "steps.s.finishedAt": FINISHED,
            "steps.s.outputs.outputsManifestGcsUri": MANIFEST,
            "steps.s.outputs.gcs_uri": MANIFEST,
            "steps.s.error": firestore.DELETE_FIELD,
        }

    def test_a_success_of_another_type_writes_its_own_outputs(self):
        """A step of another type has no manifest."""
        patch = build_success_update(step_id="s", finished_at=FINISHED, outputs={"gcs_uri": "gs://b/r.json"})
        assert patch == {
            "steps.s.status": "SUCCEEDED",
            "steps.s.finishedAt": FINISHED,
            "steps.s.outputs.gcs_uri": "gs://b/r.json",
            "steps.s.error": firestore.DELETE_FIELD,
        }

    def test_a_failure_leaves_the_outputs_alone(self):
        """A failure writes no outputs; its manifest is in the error."""
        assert _failure("s") == {
            "steps.s.status": "FAILED",
            "steps.s.finishedAt": FINISHED,
            "steps.s.error": {"code": "VALIDATION_FAILED", "message": "bad input", "details": STORED_DETAILS},
        }

    def test_a_failure_holds_the_error_as_it_is_stored(self):
        """A failure has the error in its stored, limited form."""
        patch = build_finalize_failure_update(
            step_id="s", finished_at=FINISHED, error=StepError("X", "x" * 600, {"a": "b" * 5000})
        )
        assert len(patch["steps.s.error"]["message"]) == 500

    @given(STEP_IDS)
    def test_patches_hold_only_fields_of_the_closed_step_object(self, step_id):
        """For any legal step id a patch has only fields of the closed step object."""
        for patch in (build_claim_update(step_id), _success(step_id), _failure(step_id)):
            paths = [FieldPath.from_string(key).parts for key in patch]
            assert {path[:2] for path in paths} == {("steps", step_id)}
            assert {".".join(path[2:]) for path in paths} <= CLOSED_FIELDS

    @pytest.mark.parametrize("step_id", ["a.b", "a/b", "a`b", "", "__x__", "a\n"])
    def test_an_illegal_step_id_is_never_made_a_path(self, step_id):
        """An illegal step id is never used as a path, because it would write to another place."""
        for build in (build_claim_update, _success, _failure):
            with pytest.raises(ValueError, match=r"^stepId: expected"):
                build(step_id)


PATCHES = {"claim": build_claim_update, "success": _success, "failure": _failure}


class TestPatched:
    """The run after a patch, without another read."""

    @pytest.mark.parametrize("step_id", ODD_STEP_IDS)
    @pytest.mark.parametrize("kind", PATCHES)
    def test_it_is_the_run_that_firestore_has(self, shared_documents, new_run_id, step_id, kind):
        """The patched run equals the one that Firestore returns, also for unusual step ids."""
        step = chart_step(outputs={"others": [1]}, error={"code": "OLD"})
        run = FlowRun.parse(new_run_id, run_document({step_id: step, "other": chart_step()}))
        reference = shared_documents.document(f"flow_runs/{new_run_id}")
        reference.set(run.document)
        reference.update(PATCHES[kind](step_id))
        known = patched(run, PATCHES[kind](step_id))
        assert (known.document, known.status) == (reference.get().to_dict(), run.status)

    @pytest.mark.parametrize("outputs", [None, "text", []])
    def test_outputs_that_are_no_map_become_one(self, shared_documents, new_run_id, outputs):
        """Outputs that are no map become one, as in Firestore."""
        run = FlowRun.parse(new_run_id, run_document({"s": {"status": "RUNNING", "outputs": outputs}}))
        reference = shared_documents.document(f"flow_runs/{new_run_id}")
        reference.set(run.document)
        reference.update(_success("s"))
        assert patched(run, _success("s")).document == reference.get().to_dict()

    def test_patches_of_several_steps_are_one(self):
        """The patches of several steps are combined, as a group commit does."""
        run = FlowRun.parse("r", run_document({"a": chart_step(), "b": chart_step(), "c": chart_step()}))
        steps = patched(run, build_claim_update("a") | _success("b")).document["steps"]
        assert [steps[name]["status"] for name in "abc"] == ["RUNNING", "SUCCEEDED", "READY"]

    def test_the_run_it_came_from_is_left_as_it_was(self):
        """The original run is not changed by a patch."""
        run = FlowRun.parse("r", run_document({"s": chart_step()}))
        patched(run, _success("s"))
        assert run.document == run_document({"s": chart_step()})
