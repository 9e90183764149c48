"""The manifest of a step's charts: build, validate, encode and decode it. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import fastjsonschema

from worker_chart_export.errors import ManifestRefused, StepError
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from worker_chart_export.inputs.export_request import ExportRequest

SCHEMA_VERSION = 1
MAX_MANIFEST_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestItem:
    """A stored chart."""

    template_id: str
    kind: str
    png_uri: str
    generated_at: datetime
    meta: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `items[]`."""
        return {
            "chartTemplateId": self.template_id,
            "kind": self.kind,
            "generatedAt": rfc3339(self.generated_at),
            "png_gcs_uri": self.png_uri,
            "meta": dict(self.meta),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFailure:
    """A requested chart that failed."""

    template_id: str
    error: StepError

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `failures[]`."""
        return {"request": {"chartTemplateId": self.template_id}, "error": self.error.to_dict()}


def build_manifest(
    *,
    run_id: str,
    step_id: str,
    created_at: datetime,
    export: ExportRequest,
    results: Sequence[ManifestItem | ManifestFailure],
) -> dict[str, Any]:
    """Build the manifest document.

    Args:
        run_id: The run.
        step_id: The step.
        created_at: The present time.
        export: The step's request.
        results: One result for each requested template, in the order of the requests.
    """
    return {
        "schemaVersion": SCHEMA_VERSION,
        "runId": run_id,
        "stepId": step_id,
        "createdAt": rfc3339(created_at),
        "symbol": export.symbol,
        "timeframe": export.timeframe,
        "minImages": export.min_images,
        "requested": [{"chartTemplateId": name} for name in export.template_ids],
        "items": [result.to_dict() for result in results if isinstance(result, ManifestItem)],
        "failures": [result.to_dict() for result in results if isinstance(result, ManifestFailure)],
    }


def encode_manifest(manifest: Mapping[str, Any]) -> bytes:
    """Validate a manifest and encode it as JSON. Leave out the failures' details when it is too large.

    Raises:
        ManifestRefused: It does not match its schema (the error names the place), or is still too large.
    """
    _check(manifest)
    content = json.dumps(manifest, ensure_ascii=False, separators=(",", ":")).encode()
    if len(content) > MAX_MANIFEST_BYTES:
        failures = [{**failure, "error": {**failure["error"]}} for failure in manifest["failures"]]
        for failure in failures:
            failure["error"].pop("details", None)
        shorter = {**manifest, "failures": failures}
        content = json.dumps(shorter, ensure_ascii=False, separators=(",", ":")).encode()
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestRefused(
            f"The manifest has {len(content)} bytes, readers take at most {MAX_MANIFEST_BYTES}."
        )
    return content


def decode_manifest(content: bytes) -> dict[str, Any]:
    """Decode a manifest and validate it.

    Raises:
        ManifestRefused: It is not JSON, or does not match its schema (the error names the place).
    """
    try:
        manifest: dict[str, Any] = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestRefused("The manifest is not JSON.") from error
    _check(manifest)
    return manifest


def _check(manifest: Mapping[str, Any]) -> None:
    try:
        _validate()(manifest)
    except fastjsonschema.JsonSchemaValueException as error:
        place = str(error.name).replace("data", "$", 1)
        message = error.message.replace("data", "$", 1)
        raise ManifestRefused(f"The manifest does not match its schema: {message}", path=place) from error


@cache
def _validate() -> Callable[[Mapping[str, Any]], object]:
    """Compile the schema to code, which validates twenty times as fast as an interpreter."""
    schema = files("worker_chart_export").joinpath("data/contracts/charts_outputs_manifest.schema.json")
    validate: Callable[[Mapping[str, Any]], object] = fastjsonschema.compile(
        json.loads(schema.read_text("utf-8"))
    )
    return validate
