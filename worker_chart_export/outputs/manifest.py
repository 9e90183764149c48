"""The manifest of a step's charts: build, validate, encode and decode it. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import fastjsonschema

from worker_chart_export.errors import ManifestRefused, StepError, ValidationFailed
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from worker_chart_export.inputs.export_request import ExportRequest

SCHEMA_VERSION = 1
MAX_MANIFEST_BYTES = 65536
#: The entries of `meta` that stay in a manifest which would be too large with all.
ESSENTIAL_META = ("provider", "templateVersion")
#: The entries that say who wrote the manifest.
CLAIM_META = ("attempt", "owner")
#: The entries of `meta` with the numbers of a local chart. The PNG holds them too.
NUMBERS_META = ("lastBar", "studies", "studiesLeftOut")
#: The most bytes of one chart in such a manifest, without its description, and of what all charts share. The
#: names of objects have at most 1,024 bytes, and a quotation mark takes two.
MAX_CHART_BYTES = 4096
#: The most bytes of a failure's message in such a manifest.
SHORT_MESSAGE_BYTES = 80
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


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
    """A requested chart that failed.

    Attributes:
        template_id: Its template.
        error: Why it failed.
        was_tried: False: nothing is wrong with it, but other failures left too few charts for `minImages`.
    """

    template_id: str
    error: StepError
    was_tried: bool = True

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
    claimed_by: Mapping[str, Any],
) -> dict[str, Any]:
    """Build the manifest document.

    Args:
        run_id: The run.
        step_id: The step.
        created_at: The present time.
        export: The step's request.
        results: One result for each requested template, in the order of the requests.
        claimed_by: `attempt` and `owner` of the last claim. The schema has no place for them at the top, so
            they stand in `meta` of the first item. Without items: in the details of the first failure.
    """
    items = [result.to_dict() for result in results if isinstance(result, ManifestItem)]
    failures = [result for result in results if isinstance(result, ManifestFailure)]
    if items:
        items[0]["meta"] |= claimed_by
    elif failures:
        failures[0] = replace(failures[0], error=failures[0].error.with_details(claimed_by))
    return {
        "schemaVersion": SCHEMA_VERSION,
        "runId": run_id,
        "stepId": step_id,
        "createdAt": rfc3339(created_at),
        "symbol": export.symbol,
        "timeframe": export.timeframe,
        "minImages": export.min_images,
        "requested": [{"chartTemplateId": name} for name in export.template_ids],
        "items": items,
        "failures": [failure.to_dict() for failure in failures],
    }


def claimed_by_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return `attempt` and `owner` of the claim that wrote a valid manifest, as far as it has them."""
    places = [item.get("meta", {}) for item in manifest["items"][:1]]
    places = places or [failure["error"].get("details", {}) for failure in manifest.get("failures", ())[:1]]
    return {key: place[key] for place in places for key in CLAIM_META if key in place}


def encode_manifest(manifest: Mapping[str, Any]) -> bytes:
    """Validate a manifest and encode it as JSON.

    When it is too large, leave out first the charts' numbers, then the failures' details, then all that
    `_shortest` leaves out.

    Raises:
        ManifestRefused: It does not match its schema (the error names the place), or is still too large.
    """
    _check(manifest)
    content = _encode(manifest)
    for shorten in (_without_numbers, _without_details, _shortest):
        if len(content) > MAX_MANIFEST_BYTES:
            manifest = shorten(manifest)
            content = _encode(manifest)
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestRefused(
            f"The manifest has {len(content)} bytes, readers take at most {MAX_MANIFEST_BYTES}."
        )
    return content


def surely_fits(descriptions: Sequence[str]) -> bool:
    """Return True if the manifest of charts with these descriptions fits, whatever else it says.

    That is nearly always so, and to build and encode a manifest takes forty times as long.
    """
    # A character has at most six bytes in JSON.
    most = sum(MAX_CHART_BYTES + 6 * len(description) for description in descriptions)
    return most <= MAX_MANIFEST_BYTES - MAX_CHART_BYTES


def check_fits(manifest: Mapping[str, Any]) -> None:
    """Check that a manifest fits in its shortest form. For a manifest of charts that are not made yet.

    Raises:
        ValidationFailed: It is too large, so the request asks for too many charts.
    """
    size = len(_encode(_shortest(manifest)))
    if size > MAX_MANIFEST_BYTES:
        raise ValidationFailed(
            f"inputs.requests: expected charts whose manifest has at most {MAX_MANIFEST_BYTES} bytes. With "
            f"{len(manifest['requested'])} requests and the descriptions of their templates it has at least "
            f"{size}.",
            field="inputs.requests",
            manifestBytes=size,
        )


def _without_numbers(manifest: Mapping[str, Any]) -> dict[str, Any]:
    def without(meta: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in meta.items() if key not in NUMBERS_META}

    return {**manifest, "items": [{**item, "meta": without(item["meta"])} for item in manifest["items"]]}


def _without_details(manifest: Mapping[str, Any]) -> dict[str, Any]:
    failures = [
        {**failure, "error": {"code": failure["error"]["code"], "message": failure["error"]["message"]}}
        for failure in manifest["failures"]
    ]
    return {**manifest, "failures": failures}


def _shortest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out details and most of `meta`, and shorten the messages of failures."""
    shorter = _without_details(manifest)
    for failure in shorter["failures"]:
        message = failure["error"]["message"].encode()
        if len(message) > SHORT_MESSAGE_BYTES:
            failure["error"]["message"] = message[: SHORT_MESSAGE_BYTES - 3].decode(errors="ignore") + "…"
    items = [
        {**item, "meta": {key: item["meta"][key] for key in ESSENTIAL_META if key in item["meta"]}}
        for item in manifest["items"]
    ]
    return {**shorter, "items": items}


def _encode(manifest: Mapping[str, Any]) -> bytes:
    return _encoder.encode(manifest).encode()


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
        place = "$" + str(error.name).removeprefix("data")
        message = "$" + error.message.removeprefix("data")
        raise ManifestRefused(f"The manifest does not match its schema: {message}", path=place) from error


@cache
def _validate() -> Callable[[Mapping[str, Any]], object]:
    """Compile the schema to code, which validates twenty times as fast as an interpreter."""
    schema = files("worker_chart_export").joinpath("data/contracts/charts_outputs_manifest.schema.json")
    validate: Callable[[Mapping[str, Any]], object] = fastjsonschema.compile(
        json.loads(schema.read_text("utf-8"))
    )
    return validate
