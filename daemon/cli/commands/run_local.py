"""The command `run-local`: export one step with the daemon's own pipeline, without Pub/Sub."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.output import examples, why_not_json
from daemon.cli.places import asking_for, place_of
from daemon.exit import ExitCode
from worker_chart_export.charts.modes import ChartsApiMode
from worker_chart_export.errors import BackendRefused, RunInvalid, shown, visible
from worker_chart_export.inputs.flow_run import FlowRun, why_run_id_refused, why_step_id_refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.composition import Worker

EXAMPLES = examples(
    "run-local --flow-run-path flow_run.json",
    "run-local --flow-run-path run.json --charts-api-mode local",
    "run-local --flow-run-path run.json --output-summary json",
)


class OutputSummary(StrEnum):
    """What the command prints on standard output at the end."""

    TEXT = "text"
    JSON = "json"
    NONE = "none"


def command(
    flow_run_path: Annotated[
        Path, typer.Option(help="A flow run as JSON. Stored in Firestore unless a run with its id exists.")
    ],
    step_id: Annotated[
        str | None, typer.Option(help="The step. Default: the first eligible step by id.")
    ] = None,
    charts_bucket: Annotated[str | None, typer.Option(help="gs://NAME. Overrides CHARTS_BUCKET.")] = None,
    charts_api_mode: Annotated[
        ChartsApiMode | None,
        typer.Option(help=f"{', '.join(ChartsApiMode)}. Overrides CHARTS_API_MODE.", metavar="MODE"),
    ] = None,
    accounts_config_path: Annotated[
        Path | None, typer.Option(help="Chart-IMG accounts. Overrides CHART_IMG_ACCOUNTS_JSON.")
    ] = None,
    output_summary: Annotated[
        OutputSummary, typer.Option(help=f"What to print: {', '.join(OutputSummary)}.", metavar="FORM")
    ] = OutputSummary.TEXT,
) -> None:
    """Export one step of a flow run on this machine, now. Log lines go to standard error."""
    from daemon.composition import build_worker
    from daemon.settings import ExportSettings, LogFormat, LogLevel, load_settings
    from worker_chart_export.observability.logs import configure

    configure(level=LogLevel.INFO, log_format=LogFormat.CONSOLE, stream=sys.stderr)
    document = _read_flow_run(flow_run_path)
    if step_id is not None and (problem := why_step_id_refused(step_id)):
        raise typer.BadParameter(problem)
    settings = load_settings(
        ExportSettings,
        charts_bucket=charts_bucket,
        charts_api_mode=charts_api_mode,
        chart_img_accounts_json=_read_accounts(accounts_config_path),
    )
    worker = build_worker(settings)
    with worker.resources, asking_for(f"run {document['runId']}", f"bucket {settings.bucket_name}"):
        worker.heartbeats.start()
        if not _store_run(worker, document, flow_run_path):
            text = "note: the run is stored already and used as it is there, not as in the file"
            typer.echo(f"{text} ({place_of('firestore')})", err=True)
        summary = _export_step(worker, document["runId"], step_id)
    _print(summary, output_summary)
    raise typer.Exit(ExitCode.OK if summary["status"] == "SUCCEEDED" else ExitCode.JOB_FAILED)


def _store_run(worker: Worker, document: Mapping[str, Any], path: Path) -> bool:
    """Store the run in Firestore; False if it exists. Some valid JSON can't be stored there."""
    from google.api_core.exceptions import InvalidArgument
    from google.protobuf.message import Error as ProtobufError

    from worker_chart_export.backends.errors import describe_error

    try:
        return worker.ledger.create_run(document["runId"], document)
    except (BackendRefused, ValueError, TypeError, RecursionError, ProtobufError) as error:
        if isinstance(error, BackendRefused) and not isinstance(error.__cause__, InvalidArgument):
            raise
        why = describe_error(error.__cause__ or error)
        raise typer.BadParameter(
            f"--flow-run-path: expected a run that Firestore can store in {path}, got {why}"
        ) from error


def _export_step(worker: Worker, run_id: str, step_id: str | None) -> dict[str, Any]:
    """Export the step, or the first eligible one, and return the summary to print."""
    from daemon.cli.run_check import why_no_step_is_eligible
    from worker_chart_export.execution.outcome import OutcomeKind

    try:
        if step_id is None:
            run = worker.ledger.read(run_id).run
            step = run.eligible_step() if run else None
            if step is None:
                reason = why_no_step_is_eligible(run)
                return {"status": "NOTHING_ELIGIBLE", "runId": run_id, "reason": reason}
            step_id = step.step_id
        outcome = worker.pipeline.run(run_id, step_id, scope=worker.pipeline.new_scope())
    except RunInvalid as error:
        return {"status": "RUN_INVALID", "runId": run_id, "stepId": step_id, "reason": str(error)}
    return {
        "status": "NOT_CLAIMED" if outcome.kind is OutcomeKind.CLAIM_LOST else outcome.kind.upper(),
        "runId": run_id,
        "stepId": step_id,
        "outputsManifestGcsUri": outcome.manifest_uri,
        "items": outcome.items,
        "failures": outcome.failures,
        "minImages": outcome.min_images,
        "reason": outcome.reason,
        "error": outcome.error.to_dict() if outcome.error else None,
    }


def _print(summary: Mapping[str, Any], form: OutputSummary) -> None:
    from worker_chart_export.descriptions import describe

    known = {name: value for name, value in summary.items() if value is not None}
    if form is OutputSummary.JSON:
        typer.echo(json.dumps(known, ensure_ascii=False))
    elif form is OutputSummary.TEXT:
        for name, value in known.items():
            text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
            description = describe(text) if name == "reason" else ""
            typer.echo(f"{name}: {visible(text)}{f' ({description})' if description else ''}")


def _read_flow_run(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise typer.BadParameter(
            f"--flow-run-path: expected a readable file, got {path} ({error.strerror})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"--flow-run-path: {path} is {why_not_json(error)}") from error
    if not isinstance(document, dict):
        raise typer.BadParameter(f"--flow-run-path: expected a JSON object in {path}, got {shown(document)}")
    if problem := why_run_id_refused(document.get("runId")):
        raise typer.BadParameter(f"--flow-run-path: {problem}")
    try:
        FlowRun.parse(document["runId"], document)
    except RunInvalid as error:
        raise typer.BadParameter(f"--flow-run-path: {error}") from error
    return document


def _read_accounts(path: Path | None) -> str | None:
    from daemon.settings.accounts import AccountsRefused, parse_accounts, read_accounts_file

    if path is None:
        return None
    try:
        text = read_accounts_file(path)
        parse_accounts(text)
    except AccountsRefused as error:
        raise typer.BadParameter(f"--accounts-config-path: {error}") from None
    return text
