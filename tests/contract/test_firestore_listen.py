"""Firestore `Listen`: snapshots of documents and queries, and the messages of a stream."""

from __future__ import annotations

import contextlib
import queue
import threading

import grpc
import pytest
from google.cloud.firestore_v1 import FieldFilter
from google.cloud.firestore_v1.types import ListenRequest, TargetChange

pytestmark = pytest.mark.serves("Listen")

Kind = TargetChange.TargetChangeType
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]


class Snapshots:
    """The snapshots that a listener gets, each as a dictionary from the id to the fields."""

    def __init__(self, watched) -> None:
        self._seen = queue.Queue()
        self.changes = []
        self._watch = watched.on_snapshot(self._take)

    def _take(self, snapshots, changes, _read_time):
        self.changes += [(change.type.name, change.document.id) for change in changes]
        self._seen.put({snapshot.id: snapshot.to_dict() for snapshot in snapshots})

    def until(self, wanted):
        """Wait for a snapshot that equals `wanted`, at most ten seconds."""
        while self._seen.get(timeout=10) != wanted:
            pass

    def close(self):
        """End the listener."""
        self._watch.unsubscribe()


@pytest.fixture
def listening():
    """Return a function that listens to a document or query."""
    opened = []

    def listen(watched):
        opened.append(Snapshots(watched))
        return opened[-1]

    yield listen
    for one in opened:
        one.close()


class Stream:
    """A Listen call with requests written by hand."""

    def __init__(self, raw) -> None:
        self._raw = raw
        self._requests = queue.Queue()
        self._responses = queue.Queue()
        transport = raw.client._firestore_api.transport
        self.call = transport.listen(iter(self._requests.get, None), metadata=raw.client._rpc_metadata)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with contextlib.suppress(grpc.RpcError):  # the test has ended
            for response in self.call:
                self._responses.put(response)

    def send(self, **request):
        """Send a request."""
        self._requests.put(ListenRequest(database=self._raw.database, **request))

    def next(self):
        """Return the next response."""
        return self._responses.get(timeout=10)

    def until(self, kind):
        """Return the responses up to the next change of a target of this kind."""
        responses = []
        while True:
            responses.append(self.next())
            change = responses[-1].target_change
            if change and change.target_change_type == kind:
                return responses

    def first_snapshot(self):
        """Return the responses up to the first snapshot of the target that was just added."""
        return [*self.until(Kind.CURRENT), self.next()]


@pytest.fixture
def stream(raw):
    """Return a stream."""
    opened = Stream(raw)
    yield opened
    opened.call.cancel()


def _documents(*documents, target_id=1, **more):
    names = [document._document_path for document in documents]
    return {"documents": {"documents": names}, "target_id": target_id, **more}


def _query(raw, query, target_id=2, **more):
    target = {"parent": f"{raw.database}/documents", "structured_query": query._to_protobuf()}
    return {"query": target, "target_id": target_id, **more}


def _names(responses):
    return [one.document_change.document.name.rpartition("/")[2] for one in responses if one.document_change]


def test_a_document_is_shown_with_each_change(collection, listening):
    """A listener on a document sees that it is missing, created, changed and deleted."""
    document = collection.document("a")
    snapshots = listening(document)
    snapshots.until({})
    document.set({"n": 1})
    snapshots.until({"a": {"n": 1}})
    document.update({"n": 2})
    snapshots.until({"a": {"n": 2}})
    document.delete()
    snapshots.until({})


def test_a_query_is_shown_with_each_change(client, collection, listening):
    """A listener on a query sees documents enter, change and leave it; commits are seen whole."""
    a, b, c = (collection.document(name) for name in "abc")
    a.set({"n": 1})
    c.set({"n": -1})
    snapshots = listening(collection.where(filter=FieldFilter("n", ">", 0)))
    snapshots.until({"a": {"n": 1}})
    b.set({"n": 2})
    snapshots.until({"a": {"n": 1}, "b": {"n": 2}})
    batch = client.batch()
    batch.set(a, {"n": -1})
    batch.set(c, {"n": 3})
    batch.commit()
    snapshots.until({"b": {"n": 2}, "c": {"n": 3}})
    b.delete()
    snapshots.until({"c": {"n": 3}})
    assert set(snapshots.changes) >= {("ADDED", "b"), ("REMOVED", "a"), ("REMOVED", "b")}


def test_a_limited_query_is_filled_up(collection, listening):
    """When a document leaves a query with a limit, the next one enters it."""
    for n in (1, 2):
        collection.document(str(n)).set({"n": n})
    snapshots = listening(collection.order_by("n").limit(1))
    snapshots.until({"1": {"n": 1}})
    collection.document("1").set({"n": 3})
    snapshots.until({"2": {"n": 2}})


def test_a_collection_group_is_shown(client, collection, listening):
    """A listener on a collection group sees documents at every depth."""
    snapshots = listening(client.collection_group(collection.id))
    snapshots.until({})
    collection.document("a").collection(collection.id).document("b").set({"n": 1})
    snapshots.until({"b": {"n": 1}})


def test_a_target_begins_with_its_documents(collection, stream):
    """A target is added, shows its documents, is current, and then a snapshot with a resume token follows."""
    here, missing = collection.document("here"), collection.document("missing")
    here.set({"n": 1})
    stream.send(add_target=_documents(here, missing))
    added, *shown, current, snapshot = stream.first_snapshot()
    assert (added.target_change.target_change_type, list(added.target_change.target_ids)) == (Kind.ADD, [1])
    assert _names(shown) == ["here"]
    assert [one.document_delete.document for one in shown if one.document_delete] == [missing._document_path]
    assert (current.target_change.target_change_type, list(current.target_change.target_ids)) == (
        Kind.CURRENT,
        [1],
    )
    assert list(snapshot.target_change.target_ids) == []
    assert snapshot.target_change.read_time
    assert snapshot.target_change.resume_token


def test_one_stream_has_many_targets(raw, collection, stream):
    """Targets come and go in one stream; a removed one is confirmed and shows no further change."""
    document = collection.document("a")
    document.set({"n": 1})
    stream.send(add_target=_documents(document))
    assert _names(stream.first_snapshot()) == ["a"]
    stream.send(add_target=_query(raw, collection.where(filter=FieldFilter("n", "==", 1))))
    assert _names(stream.first_snapshot()) == ["a"]
    stream.send(remove_target=1)
    removed = stream.next().target_change
    assert (removed.target_change_type, list(removed.target_ids)) == (Kind.REMOVE, [1])
    collection.document("b").set({"n": 1})
    document.set({"n": 1, "more": True})
    seen = []
    while not ("a" in _names(seen) and "b" in _names(seen)):
        seen.append(stream.next())
    assert {tuple(one.document_change.target_ids) for one in seen if one.document_change} == {(2,)}


@pytest.mark.serves("Target.resume_token", "Target.expected_count", "ListenRequest.labels")
def test_a_resumed_target_is_shown_anew(raw, collection, stream):
    """A target with a resume token is reset and shows what there is now, also what was deleted meanwhile."""
    kept, gone = collection.document("kept"), collection.document("gone")
    everything = collection.order_by("__name__")
    kept.set({})
    gone.set({})
    stream.send(add_target=_query(raw, everything))
    token = stream.first_snapshot()[-1].target_change.resume_token
    stream.send(remove_target=2)
    stream.until(Kind.REMOVE)
    gone.delete()
    resumed = _query(raw, everything, resume_token=token, expected_count=2)
    stream.send(add_target=resumed, labels={"team": "charts"})
    added, reset, *shown = stream.first_snapshot()
    assert [one.target_change.target_change_type for one in (added, reset)] == [Kind.ADD, Kind.RESET]
    assert _names(shown) == ["kept"]


@pytest.mark.parametrize("path", ["`a", ""])
def test_a_malformed_target_is_removed_with_its_cause(raw, collection, stream, path):
    """A target with a malformed query is removed with InvalidArgument; the stream goes on."""
    query = {"from_": [{"collection_id": collection.id}], "order_by": [{"field": {"field_path": path}}]}
    target = {"parent": f"{raw.database}/documents", "structured_query": query}
    stream.send(add_target={"query": target, "target_id": 5})
    removed = stream.until(Kind.REMOVE)[-1].target_change
    assert (list(removed.target_ids), removed.cause.code) == ([5], INVALID_ARGUMENT)
    stream.send(add_target=_documents(collection.document("a")))
    stream.first_snapshot()


@pytest.mark.parametrize("name", ["nope", "projects/p/databases/d/documents/c"])
def test_a_malformed_name_in_a_target_is_refused(stream, name):
    """A target with a name that is no document is removed with InvalidArgument."""
    stream.send(add_target={"documents": {"documents": [name]}, "target_id": 1})
    assert stream.until(Kind.REMOVE)[-1].target_change.cause.code == INVALID_ARGUMENT
