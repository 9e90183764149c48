"""Find the step or run that a Pub/Sub message names. Pure.

Four kinds of message are understood: plain JSON, attributes alone, and CloudEvents in binary and in
structured mode (Google's Pub/Sub binding: https://github.com/googleapis/google-cloudevents,
docs/spec/pubsub.md). Attribute values are plain strings in that binding, never percent-decoded.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.errors import shown
from worker_chart_export.inputs.flow_run import why_run_id_refused, why_step_id_refused

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

MAX_BODY_BYTES = 64 * 1024
STRUCTURED_CONTENT_TYPE = "application/cloudevents"
FIRESTORE_EVENT = "google.cloud.firestore.document.v1."
#: `deleted` is left out: there is no work for a deleted run.
EVENTS_OF_INTEREST = frozenset(
    FIRESTORE_EVENT + verb + suffix
    for verb in ("created", "updated", "written")
    for suffix in ("", ".withAuthContext")
)
#: What stands before the collection in a subject: `documents/`, or all of a full resource name.
DOCUMENTS = re.compile(r"(projects/[^/]+/databases/[^/]+/)?documents/")
#: A name with one of these segments and without that prefix is a resource name in another form.
UNREAD_PREFIX = frozenset({"projects", "documents"})
FLOW_RUNS = "flow_runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingMessage:
    """One delivery of a message, without the types of the Pub/Sub client.

    Attributes:
        delivery_attempt: The number of this delivery; None unless the subscription has a dead-letter policy.
    """

    message_id: str
    data: bytes
    attributes: Mapping[str, str]
    publish_time: datetime
    delivery_attempt: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """The step that a message names; without `step_id`, every eligible step of the run."""

    run_id: str
    step_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Irrelevant:
    """A well-formed event that is not about a flow run."""

    reason: str


class MessageRejected(Exception):
    """The message can't be understood.

    Attributes:
        reason: A stable code, e.g. `run_id_invalid`.
        detail: One sentence that names the field, what was expected, and what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def parse_message(data: bytes, attributes: Mapping[str, str]) -> StepRequest | Irrelevant:
    """Return the step or run that a message names.

    Raises:
        MessageRejected: The message can't be understood.
    """
    structured = attributes.get("content-type", "").lower().startswith(STRUCTURED_CONTENT_TYPE)
    if "ce-type" in attributes and not structured:
        # The body holds the whole document before and after. It is not read, so its size does not matter.
        documents = (attributes.get("ce-subject"), attributes.get("ce-document"))
        return _firestore_event(attributes["ce-type"], *documents)
    if len(data) > MAX_BODY_BYTES:
        raise MessageRejected(
            "body_too_large", f"body: expected at most {MAX_BODY_BYTES} bytes, got {len(data)}"
        )
    if not data and not structured:
        if "runId" not in attributes:
            raise MessageRejected(
                "body_empty", "body: expected a JSON object with runId, or the attribute runId, got neither"
            )
        return _step_request(attributes)
    body = _json_object(data)
    return _structured_event(body) if structured or "specversion" in body else _step_request(body)


def _step_request(fields: Mapping[str, Any]) -> StepRequest:
    if "runId" not in fields:
        raise MessageRejected("run_id_missing", "runId: expected in the JSON body, got nothing")
    run_id = fields["runId"]
    if why := why_run_id_refused(run_id):
        raise MessageRejected("run_id_invalid", why)
    if "stepId" not in fields:
        return StepRequest(run_id=run_id)
    step_id = fields["stepId"]
    if why := why_step_id_refused(step_id):
        raise MessageRejected("step_id_invalid", why)
    return StepRequest(run_id=run_id, step_id=step_id)


def _structured_event(body: Mapping[str, Any]) -> StepRequest | Irrelevant:
    kind, data = body.get("type"), _event_data(body)
    plain = data if isinstance(data, dict) and "runId" in data else None
    if isinstance(kind, str) and kind in EVENTS_OF_INTEREST:
        value = data.get("value") if isinstance(data, dict) else None
        name = value.get("name") if isinstance(value, dict) else None
        documents = [body.get("subject"), body.get("document"), name]
        if any(isinstance(document, str) and document for document in documents) or plain is None:
            return _firestore_event(kind, *documents)
    if plain is not None:
        return _step_request(plain)
    if not isinstance(kind, str) or not kind:
        raise MessageRejected("event_type_missing", f"type: expected the event's type, got {shown(kind)}")
    return Irrelevant(reason=f"event type {shown(kind)}")


def _event_data(body: Mapping[str, Any]) -> Any:
    """Return the data of an event; None for encoded data that can't be read."""
    if "data_base64" not in body:
        return body.get("data")
    try:
        return json.loads(base64.b64decode(body["data_base64"], validate=True))
    except (binascii.Error, TypeError, ValueError, RecursionError):
        return None


def _firestore_event(kind: str, *documents: object) -> StepRequest | Irrelevant:
    """Read a Firestore event; the first document name that can be read as a flow run counts.

    An event that seems to name a flow run and can't be read is rejected: to ignore it could lose a step.
    """
    if kind not in EVENTS_OF_INTEREST:
        return Irrelevant(reason=f"event type {shown(kind)}")
    names = [name for name in documents if isinstance(name, str) and name]
    if not names:
        got = shown(next((name for name in documents if name), None))
        raise MessageRejected("subject_missing", f"subject: expected documents/flow_runs/<runId>, got {got}")
    refused: MessageRejected | None = None
    for name in names:
        try:
            request = _run_named_by(name)
        except MessageRejected as error:
            refused = refused or error
        else:
            if request is not None:
                return request
    if refused is not None:
        raise refused
    return Irrelevant(reason=f"document {shown(names[0])}")


def _run_named_by(document: str) -> StepRequest | None:
    """Return the run that a document name means; None for a document that is no flow run.

    Raises:
        MessageRejected: It seems to mean a flow run, but it is not a document name or its run id is wrong.
    """
    prefix = DOCUMENTS.match(document)
    path = document[prefix.end() :] if prefix else document
    collection, _, run_id = path.partition("/")
    if collection == FLOW_RUNS and "/" not in run_id:
        return _step_request({"runId": run_id})
    segments = path.split("/")
    is_relative = prefix is None and UNREAD_PREFIX.isdisjoint(segments)
    is_document = all(segments) and len(segments) % 2 == 0 and (prefix is not None or is_relative)
    if FLOW_RUNS in path and not is_document:
        expected = "documents/flow_runs/<runId> or the full resource name"
        raise MessageRejected("subject_invalid", f"subject: expected {expected}, got {shown(document)}")
    return None


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data.decode().removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise MessageRejected(
            "body_not_json", f"body: expected a JSON object in UTF-8, got {shown(data[:60])} ({error!s:.80})"
        ) from error
    if not isinstance(body, dict):
        raise MessageRejected("body_not_object", f"body: expected a JSON object, got {shown(body)}")
    return body
