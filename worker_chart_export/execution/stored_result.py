"""Results that are in the bucket already, of steps that are RUNNING again.

An orchestrator that writes whole runs can overwrite the result of a step that ended since it read the run.
The manifest of such a step is still in the bucket, and its charts are paid for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from worker_chart_export.errors import NOT_MADE, ManifestRefused, RequestError, StepError
from worker_chart_export.execution.outcome import Outcome, OutcomeKind, too_few_charts
from worker_chart_export.inputs.export_request import parse_export_request
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.outputs.artifact_store import StepFolder
from worker_chart_export.outputs.manifest import ManifestFailure, claimed_by_of, decode_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.inputs.export_request import ExportRequest
    from worker_chart_export.inputs.flow_run import FlowRun, Step
    from worker_chart_export.outputs.artifact_store import ArtifactStore


def find_stored_result(
    artifacts: ArtifactStore, run: FlowRun, step: Step, *, scope: CancelScope
) -> Outcome | None:
    """Return the outcome that the step's manifest in the bucket shows.

    None: there is no manifest, it is invalid, it may not be read, or it is one of other requests.

    Raises:
        BackendUnavailable: Cloud Storage stays unavailable.
        WorkerError: The step was stopped, or its time ended.
    """
    folder = StepFolder(run.run_id, step.step_id)
    try:
        export = parse_export_request(run, step)
        content = artifacts.read_manifest(folder.manifest_name, scope=scope)
        manifest = None if content is None else decode_manifest(content)
    except ManifestRefused as error:
        log.warning(Event.BACKEND_REFUSED, error.message, backend="storage", **error.details)
        return None
    except RequestError:  # the step is invalid, so no manifest can belong to it
        return None
    if manifest is None or not is_manifest_of(manifest, folder, export):
        return None
    return _outcome(manifest, export, artifacts.uri(folder.manifest_name))


def is_manifest_of(manifest: Mapping[str, Any], folder: StepFolder, export: ExportRequest) -> bool:
    """Return whether a valid manifest belongs to this step and has one result for each of its requests."""
    wanted = {
        "runId": folder.run_id,
        "stepId": folder.step_id,
        "symbol": export.symbol,
        "timeframe": export.timeframe,
        "minImages": export.min_images,
    }
    made = [item["chartTemplateId"] for item in manifest["items"]]
    failed = [failure["request"]["chartTemplateId"] for failure in manifest["failures"]]
    return (
        all(manifest.get(name) == value for name, value in wanted.items())
        and [request["chartTemplateId"] for request in manifest["requested"]] == list(export.template_ids)
        and sorted(made + failed) == sorted(export.template_ids)
    )


def _outcome(manifest: Mapping[str, Any], export: ExportRequest, uri: str) -> Outcome:
    items, failures = len(manifest["items"]), manifest["failures"]
    is_success = items >= export.min_images
    outcome = Outcome(
        kind=OutcomeKind.SUCCEEDED if is_success else OutcomeKind.FAILED,
        manifest_uri=uri,
        items=items,
        failures=len(failures),
        min_images=export.min_images,
    )
    if is_success:
        return outcome
    tried = (failure for failure in failures if not failure["error"]["message"].startswith(NOT_MADE))
    first = next(tried, failures[0])
    template_id, error = first["request"]["chartTemplateId"], StepError(**first["error"])
    failed = too_few_charts(outcome, ManifestFailure(template_id=template_id, error=error))
    return replace(failed, error=failed.error and failed.error.with_details(claimed_by_of(manifest)))
