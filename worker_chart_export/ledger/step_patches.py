"""What is written into a flow run: field-path patches of one step, and a run with them applied. Pure."""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING, Any, cast

from google.cloud import firestore

from worker_chart_export.inputs.flow_run import FlowRun, StepStatus, why_step_id_refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.errors import StepError

FLOW_RUNS = "flow_runs"


def build_claim_update(step_id: str) -> dict[str, Any]:
    """READY -> RUNNING as a field-path patch."""
    return _step_patch(step_id, {"status": StepStatus.RUNNING.value})


def build_finalize_success_update(
    *, step_id: str, finished_at: str, outputs_manifest_gcs_uri: str
) -> dict[str, Any]:
    """RUNNING -> SUCCEEDED; names the manifest under its old and its new key and deletes a stale error."""
    return _step_patch(
        step_id,
        {
            "status": StepStatus.SUCCEEDED.value,
            "finishedAt": finished_at,
            "outputs.outputsManifestGcsUri": outputs_manifest_gcs_uri,
            "outputs.gcs_uri": outputs_manifest_gcs_uri,
            "error": firestore.DELETE_FIELD,
        },
    )


def build_finalize_failure_update(*, step_id: str, finished_at: str, error: StepError) -> dict[str, Any]:
    """RUNNING -> FAILED with its error; `outputs` stay untouched."""
    return _step_patch(
        step_id, {"status": StepStatus.FAILED.value, "finishedAt": finished_at, "error": error.to_dict()}
    )


def _step_patch(step_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Field paths for the client's `update()`, which quotes what stands between the dots itself.

    Raises:
        ValueError: The step id would make them paths to something else.
    """
    if why := why_step_id_refused(step_id):
        raise ValueError(why)
    return {f"steps.{step_id}.{name}": value for name, value in fields.items()}


def patched(run: FlowRun, patch: Mapping[str, Any]) -> FlowRun:
    """The run as it is once `patch`, one of the above or several merged, was written to it."""
    steps, changed = run.document["steps"], dict[str, Any]()
    for path, value in patch.items():
        _, step_id, name = path.split(".", 2)
        changed[step_id] = _with_field(changed.get(step_id, steps[step_id]), name, value)
    document = _laid_over(run.document, {"steps": _laid_over(steps, changed)})
    return FlowRun(run_id=run.run_id, status=run.status, document=document)


def _laid_over(base: Mapping[str, Any], changed: Mapping[str, Any]) -> ChainMap[str, Any]:
    """`base` with what has changed: of a large run, the rest stays as the wire has it."""
    if isinstance(base, ChainMap):
        earlier, base = base.maps
        changed = {**earlier, **changed}
    return ChainMap(dict(changed), cast("dict[str, Any]", base))


def _with_field(fields: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    if rest:
        inner = fields.get(name)
        value = _with_field(inner if isinstance(inner, dict) else {}, rest, value)
    elif value is firestore.DELETE_FIELD:
        return {key: kept for key, kept in fields.items() if key != name}
    return {**fields, name: value}
