"""From the bytes and attributes of a Pub/Sub message to the step or run it names. Pure.

Four kinds are understood: plain JSON, attributes alone, and CloudEvents in binary and in structured mode
(Google's Pub/Sub binding: https://github.com/googleapis/google-cloudevents, docs/spec/pubsub.md). Attribute
values are plain strings in that binding, never percent-decoded.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.errors import shown
from worker_chart_export.inputs.flow_run import why_run_id_refused, why_step_id_refused

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BODY_BYTES = 64 * 1024
STRUCTURED_CONTENT_TYPE = "application/cloudevents"
FIRESTORE_EVENT = "google.cloud.firestore.document.v1."
#: A run that was deleted can't be worked, so `deleted` is not among them.
EVENTS_OF_INTEREST = frozenset(
    FIRESTORE_EVENT + verb + suffix
    for verb in ("created", "updated", "written")
    for suffix in ("", ".withAuthContext")
)
DOCUMENTS = "documents/"
FLOW_RUNS = "flow_runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """What a message asks for: one step, or (without `step_id`) whatever is eligible in a run."""

    run_id: str
    step_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Irrelevant:
    """An event that is well-formed and none of this worker's business."""

    reason: str


class MessageRejected(Exception):
    """The message can't be understood.

    Attributes:
        reason: A stable code, e.g. `run_id_invalid`.
        detail: One sentence naming the field, what was expected, and what was there.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def parse_message(data: bytes, attributes: Mapping[str, str]) -> StepRequest | Irrelevant:
    """Tell what a message asks for.

    Raises:
        MessageRejected: It asks for nothing that can be understood.
    """
    structured = attributes.get("content-type", "").lower().startswith(STRUCTURED_CONTENT_TYPE)
    if "ce-type" in attributes and not structured:
        # The body holds the whole document, old and new, and is not read: its size is no matter.
        documents = (attributes.get("ce-subject"), attributes.get("ce-document"))
        return _event(attributes["ce-type"], *documents)
    if len(data) > MAX_BODY_BYTES:
        raise MessageRejected(
            "body_too_large", f"body: expected at most {MAX_BODY_BYTES} bytes, got {len(data)}"
        )
    if structured:
        return _structured_event(_json_object(data))
    if not data:
        return _from_attributes(attributes)
    body = _json_object(data)
    return _structured_event(body) if "specversion" in body else _plain(body)


def _plain(body: Mapping[str, Any]) -> StepRequest:
    if "runId" not in body:
        raise MessageRejected("run_id_missing", "runId: expected in the JSON body, got nothing")
    return _request(body["runId"], body["stepId"]) if "stepId" in body else _request(body["runId"])


def _from_attributes(attributes: Mapping[str, str]) -> StepRequest:
    if "runId" not in attributes:
        raise MessageRejected(
            "body_empty", "body: expected a JSON object with runId, or the attribute runId, got neither"
        )
    return _request(attributes["runId"], *([attributes["stepId"]] if "stepId" in attributes else []))


def _structured_event(body: Mapping[str, Any]) -> StepRequest | Irrelevant:
    kind = body.get("type")
    if isinstance(kind, str) and kind in EVENTS_OF_INTEREST:
        return _event(kind, body.get("subject"), body.get("document"))
    data = _event_data(body)
    if isinstance(data, dict) and "runId" in data:
        return _plain(data)
    if not isinstance(kind, str) or not kind:
        raise MessageRejected("event_type_missing", f"type: expected the event's type, got {shown(kind)}")
    return Irrelevant(reason=f"event type {shown(kind)}")


def _event_data(body: Mapping[str, Any]) -> Any:
    """`data`, or `data_base64` if it holds JSON; None when there is neither."""
    if "data_base64" not in body:
        return body.get("data")
    try:
        return json.loads(base64.b64decode(body["data_base64"], validate=True))
    except (binascii.Error, TypeError, ValueError, RecursionError):
        return None


def _event(kind: str, *documents: object) -> StepRequest | Irrelevant:
    """A Firestore event; the first document name among `documents` counts."""
    if kind not in EVENTS_OF_INTEREST:
        return Irrelevant(reason=f"event type {shown(kind)}")
    document = next((name for name in documents if name), None)
    if not isinstance(document, str):
        raise MessageRejected(
            "subject_missing", f"subject: expected documents/flow_runs/<runId>, got {shown(document)}"
        )
    collection, _, run_id = document.removeprefix(DOCUMENTS).partition("/")
    if collection != FLOW_RUNS or "/" in run_id:
        return Irrelevant(reason=f"document {shown(document)}")
    return _request(run_id)


def _request(run_id: object, *step_ids: object) -> StepRequest:
    if why := why_run_id_refused(run_id):
        raise MessageRejected("run_id_invalid", why)
    for step_id in step_ids:
        if why := why_step_id_refused(step_id):
            raise MessageRejected("step_id_invalid", why)
    return StepRequest(run_id=str(run_id), step_id=str(step_ids[0]) if step_ids else None)


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MessageRejected(
            "body_not_json", f"body: expected a JSON object in UTF-8, got {shown(data[:60])} ({error!s:.80})"
        ) from error
    if not isinstance(body, dict):
        raise MessageRejected("body_not_object", f"body: expected a JSON object, got {shown(body)}")
    return body
