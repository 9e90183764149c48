"""The size of a run's document by Firestore's documented count, now and with all results. Pure.

Source: https://cloud.google.com/firestore/docs/storage-size. Emulators count up to a fifth less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from daemon.reports.report import FINAL_STATUSES, DocumentSize
from worker_chart_export.inputs.flow_run import why_step_id_refused
from worker_chart_export.ledger.decisions import build_finalize_success_update, patched
from worker_chart_export.outputs.artifact_store import StepFolder

if TYPE_CHECKING:
    from worker_chart_export.inputs.flow_run import FlowRun

MAP_BYTES, NAME_BYTES, NUMBER_BYTES = 32, 16, 8
FINISHED_AT = "2025-12-15T10:26:15.000000Z"


def document_size(run: FlowRun, bucket: str | None) -> DocumentSize:
    """Return the size of the run's document.

    Args:
        run: The run.
        bucket: The charts bucket, whose name is in each result; None if it is not known. Then its length is
            not counted.
    """
    patch: dict[str, object] = {}
    for step_id in run.chart_step_ids():
        is_final = str(run.document["steps"][step_id].get("status")) in FINAL_STATUSES
        if is_final or why_step_id_refused(step_id):
            continue
        manifest = f"gs://{bucket or ''}/{StepFolder(run.run_id, step_id).manifest_name}"
        patch |= build_finalize_success_update(
            step_id=step_id, finished_at=FINISHED_AT, outputs_manifest_gcs_uri=manifest
        )
    finished = patched(run, patch) if patch else run
    return DocumentSize(now=_document_bytes(run), finished=_document_bytes(finished))


def _document_bytes(run: FlowRun) -> int:
    name = _text_bytes("flow_runs") + _text_bytes(run.run_id) + NAME_BYTES
    return name + _value_bytes(run.document)


def _value_bytes(value: object) -> int:
    if isinstance(value, str):
        return _text_bytes(value)
    if value is None or isinstance(value, bool):
        return 1
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Mapping):
        # The document is a map too.
        return MAP_BYTES + sum(_text_bytes(str(name)) + _value_bytes(item) for name, item in value.items())
    if isinstance(value, Sequence):
        return sum(map(_value_bytes, value))
    return NUMBER_BYTES  # also a time; a place takes twice as much, and a reference as its path


def _text_bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass")) + 1
