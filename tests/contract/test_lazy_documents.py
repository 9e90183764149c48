"""Lazily decoded documents are equal to those of Google's client, on both clouds."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.firestore import Client, GeoPoint
from google.cloud.firestore_v1._helpers import encode_dict
from google.cloud.firestore_v1.types.document import ArrayValue, MapValue, Value
from google.cloud.firestore_v1.vector import Vector

from worker_chart_export.backends import firestore_values
from worker_chart_export.backends.firestore import read_documents
from worker_chart_export.backends.firestore_values import LazyFields, Undecodable
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.inputs.flow_run import FlowRun

FIELDS = {
    "nothing": None,
    "yes": True,
    "count": -(2**62),
    "price": 0.1,
    "when": datetime(2025, 12, 15, 10, 25, 30, 123456, tzinfo=UTC),
    "text": "ünï→\n",
    "bytes": b"\x00\xff",
    "where": GeoPoint(1.5, -2.5),
    "list": [1, "a", {"b": [2]}],
    "empty": {},
    "steps": {"charts:1d:main": {"status": "READY", "inputs": {"requests": [{"a": 1}]}}, "odd `key.": {}},
}


def test_every_kind_of_value_is_what_google_s_client_makes_of_it(client, collection):
    """Every kind of value, and each document's times, equal those of Google's client."""
    document = collection.document("a")
    document.set({**FIELDS, "other": collection.document("b")})
    (found,), theirs = read_documents(client, [document]), document.get()
    assert found.fields == theirs.to_dict()
    assert found.update_time == theirs.update_time
    assert found.read_time >= found.update_time


def test_a_vector_in_the_place_of_a_map_is_a_vector(client):
    """A map on the wire that encodes a vector is decoded as a vector, where the emulator supports it."""
    values = {name: type(value).pb(value) for name, value in encode_dict({"v": Vector([1.0, 2.0])}).items()}
    assert LazyFields(values, client)["v"] == Vector([1.0, 2.0])


def test_a_value_that_google_s_client_can_t_decode_stands_for_itself_alone(client, collection):
    """References into another database, at any depth, leave all other values as they are."""
    elsewhere = Client(
        project=client.project, database="elsewhere", credentials=AnonymousCredentials()
    ).document("a/b")
    fields = {"link": elsewhere, "list": [1, elsewhere], "map": {"a": {"b": {"c": [{"d": elsewhere}]}}}}
    collection.document("a").set({**FIELDS, **fields})
    (found,) = read_documents(client, [collection.document("a")])
    assert found.fields is not None
    link = Undecodable("reference_value", elsewhere._document_path)
    expected = {**FIELDS, "link": link, "list": [1, link], "map": {"a": {"b": {"c": [{"d": link}]}}}}
    assert found.to_dict() == expected
    assert found.fields == expected
    assert repr(link) == f"<reference_value projects/{client.project}/databases/elsewhere/documents/a/b>"


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (Value(), Undecodable("unknown type")),
        (
            Value(array_value=ArrayValue(values=[Value(), Value(integer_value=1)])),
            [Undecodable("unknown type"), 1],
        ),
        (
            Value(map_value=MapValue(fields={"__type__": Value(string_value="__vector__")})),
            Undecodable("map_value"),
        ),
        (Value(reference_value="no resource name"), Undecodable("reference_value", "no resource name")),
    ],
)
def test_types_that_are_newer_than_the_client_are_no_error(client, wire, expected):
    """A type that the client does not know, or a broken one, is decoded as a stand-in."""
    value = Value.pb(wire)
    assert LazyFields({"v": value}, client)["v"] == expected
    assert LazyFields({"v": value}, client).to_dict() == {"v": expected}


def test_only_the_parts_of_a_large_run_that_are_read_are_decoded(client, collection, monkeypatch):
    """Only the parts of a large run that are read are decoded, also when the next step is searched."""
    steps = {
        f"s{number:03}": {"status": "READY", "stepType": "CHART_EXPORT", "inputs": {"requests": [{}] * 5}}
        for number in range(100)
    }
    collection.document("a").set({"steps": steps})
    decoded = []
    plainly = firestore_values.decoded
    monkeypatch.setattr(firestore_values, "decoded", lambda *value: decoded.append(value) or plainly(*value))
    (found,) = read_documents(client, [collection.document("a")])
    run = FlowRun.parse("a", found.fields)
    assert run.step("s042").inputs == {"requests": [{}] * 5}
    assert len(decoded) <= 8
    assert run.eligible_step().step_id == "s000"
    assert len(decoded) <= 8 + 100 + 8


def test_a_map_reads_as_what_it_holds(client, collection):
    """A lazy map has the repr of the map that it holds."""
    collection.document("a").set({"status": {"odd": [1]}})
    (found,) = read_documents(client, [collection.document("a")])
    assert f"{found.fields['status']!r}" == "{'odd': [1]}"


def test_documents_come_in_the_requested_order_and_missing_ones_too(client, collection):
    """Documents are returned in the requested order, with missing ones, all of one read time."""
    for name in "abc":
        collection.document(name).set({"name": name})
    found = read_documents(client, [collection.document(name) for name in "cxab"])
    assert [one.fields and one.fields["name"] for one in found] == ["c", None, "a", "b"]
    assert found[1].update_time is None
    assert len({one.read_time for one in found}) == 1


def test_reading_a_missing_key_changes_nothing(client, collection):
    """Reading a missing key leaves the map unchanged, though a protobuf map would create it."""
    document = collection.document("a")
    document.set({"steps": {"s": {}}})
    (found,) = read_documents(client, [document])
    steps = found.fields["steps"]
    assert steps.get("t") is None
    with pytest.raises(KeyError):
        steps["t"]
    assert "t" not in steps
    assert 1 not in steps
    assert steps.get("\ud800") is None
    assert (list(steps), len(steps), list(found.fields)) == (["s"], 1, ["steps"])


def test_a_document_that_is_not_in_the_response_is_an_error(client, collection):
    """A document that the response leaves out raises an error and is not treated as missing."""

    class Channel:
        def unary_stream(self, *_method, **_messages):
            return lambda *_request, **_options: []

    silent = SimpleNamespace(
        _firestore_api=SimpleNamespace(transport=SimpleNamespace(grpc_channel=Channel())),
        _database_string=client._database_string,
        _rpc_metadata=client._rpc_metadata,
    )
    with pytest.raises(BackendUnavailable, match=r"lacks the document .*/a$"):
        read_documents(silent, [collection.document("a")])
