"""A commit in the wire format: the same message as Google's client builds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore
from google.cloud.firestore_v1.types import CommitRequest
from proto.datetime_helpers import DatetimeWithNanoseconds

from worker_chart_export.backends.firestore_writes import Writes

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
UPDATE_TIME = DatetimeWithNanoseconds.from_rfc3339("2026-01-01T00:00:00.123456789Z")
FIELDS: dict[str, Any] = {
    "text": "é`.",
    "empty": "",
    "whole": 2**63 - 1,
    "no": False,
    "half": 0.5,
    "none": None,
    "at": NOW,
    "answered": UPDATE_TIME,
    "bytes": b"\0",
    "list": ["a", {"b": 1}, []],
    "map": {"inner": {"x y": 1}, "empty": {}, "dotted.name": 1},
    "dotted.name": 1,
}


@pytest.fixture
def client() -> firestore.Client:
    """Create a client that calls nothing."""
    return firestore.Client(project="p", credentials=AnonymousCredentials())


def wire(batch: Any) -> Any:
    """Return the message that a batch sends."""
    message = CommitRequest.pb()()
    request = batch._request if isinstance(batch, Writes) else batch._prep_commit(None, None)[0]
    message.CopyFrom(CommitRequest.pb(CommitRequest(request)) if isinstance(request, dict) else request)
    for write in message.writes:
        write.update_mask.field_paths.sort()  # their order has no meaning
    return message


def test_each_write_is_that_of_googles_client(client: firestore.Client) -> None:
    """Updates with deletions and nested fields, creations and deletions, with their preconditions."""
    run = client.document("flow_runs/r")
    lease = run.collection("leases").document("charts:1d:a")
    patch = {
        "status": "RUNNING",
        "steps.charts:1d:a.status": "SUCCEEDED",
        "steps.charts:1d:a.outputs.gcs_uri": "gs://b/o",
        "steps.charts:1d:a.outputs.other": {},
        "steps.charts:1d:a.error": firestore.DELETE_FIELD,
        "steps.plain.at": NOW,
    }
    option = client.write_option(last_update_time=UPDATE_TIME)
    google, ours = client.batch(), Writes(client)
    google.update(run, patch, option=option)
    ours.update(run, patch, update_time=UPDATE_TIME)
    google.create(lease, FIELDS)
    ours.create(lease, FIELDS)
    google.delete(lease, option=option)
    ours.delete(lease, update_time=UPDATE_TIME)
    google.delete(lease)
    ours.delete(lease)
    assert wire(ours) == wire(google)


@pytest.mark.parametrize("value", ["\ud800", 2**63, object(), {1: "a"}, [["a"], object()]])
def test_what_firestore_cannot_store_is_refused_like_googles_client_does(
    client: firestore.Client, value: Any
) -> None:
    """The caller takes both errors for a value that Firestore can't store."""
    reference = client.document("flow_runs/r")
    with pytest.raises((TypeError, ValueError)):
        client.batch().create(reference, {"a": value})
    with pytest.raises((TypeError, ValueError)):
        Writes(client).create(reference, {"a": value})
