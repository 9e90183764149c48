"""The manifest of a step's charts: built, validated against its schema, made small enough, and read. Pure."""

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
    """A chart that was made and stored."""

    template_id: str
    kind: str
    png_uri: str
    generated_at: datetime
    meta: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The entry of `items[]`."""
        return {
            "chartTemplateId": self.template_id,
            "kind": self.kind,
            "generatedAt": rfc3339(self.generated_at),
            "png_gcs_uri": self.png_uri,
            "meta": dict(self.meta),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFailure:
    """A requested chart that was not made."""

    template_id: str
    error: StepError

    def to_dict(self) -> dict[str, Any]:
        """The entry of `failures[]`."""
        return {"request": {"chartTemplateId": self.template_id}, "error": self.error.to_dict()}


def build_manifest(
    *,
    run_id: str,
    step_id: str,
    created_at: datetime,
    export: ExportRequest,
    results: Sequence[ManifestItem | ManifestFailure],
) -> dict[str, Any]:
    """The manifest document; `results` has one entry for each requested template, in the order asked."""
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
    """Validate and serialise; details of failures are left out when it would be too large with them.

    Raises:
        ManifestRefused: It does not match its schema (names the place), or is too large all the same.
    """
    _check(manifest)
    for candidate in (manifest, _without_details(manifest)):
        content = json.dumps(candidate, ensure_ascii=False, separators=(",", ":")).encode()
        if len(content) <= MAX_MANIFEST_BYTES:
            return content
    raise ManifestRefused(
        f"The manifest has {len(content)} bytes, readers take at most {MAX_MANIFEST_BYTES}."
    )


def decode_manifest(content: bytes) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        ManifestRefused: It is not JSON, or does not match its schema (names the place).
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
        words = error.message.replace("data", "$", 1)
        raise ManifestRefused(f"The manifest does not match its schema: {words}", path=place) from error


def _without_details(manifest: Mapping[str, Any]) -> dict[str, Any]:
    def shortened(failure: Mapping[str, Any]) -> dict[str, Any]:
        error = {name: value for name, value in failure["error"].items() if name != "details"}
        return {**failure, "error": error}

    return {**manifest, "failures": [shortened(failure) for failure in manifest["failures"]]}


@cache
def _validate() -> Callable[[Mapping[str, Any]], object]:
    """The schema as code: interpreting it takes twenty times as long."""
    schema = files("worker_chart_export").joinpath("data/contracts/charts_outputs_manifest.schema.json")
    validate: Callable[[Mapping[str, Any]], object] = fastjsonschema.compile(
        json.loads(schema.read_text("utf-8"))
    )
    return validate
