"""BatchWrite: every write succeeds or fails on its own."""

from __future__ import annotations

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.firestore_v1 import _helpers

pytestmark = pytest.mark.serves("BatchWrite")


def _update(document, fields, **current):
    write = {
        "update": {"name": document._document_path, "fields": _helpers.encode_dict(fields)},
        "update_mask": {"field_paths": list(fields)},
    }
    return {**write, "current_document": current} if current else write


def _code(name):
    return grpc.StatusCode[name].value[0]


def test_each_write_succeeds_or_fails_on_its_own(raw, collection):
    """Valid writes are applied with their own update times; the others return an error each."""
    lease, stale, missing, new = (collection.document(name) for name in ("lease", "stale", "missing", "new"))
    held = lease.set({"n": 1}).update_time
    old = stale.set({"n": 1}).update_time
    stale.set({"n": 2})
    answer = raw.batch_write(
        _update(lease, {"n": 2}, update_time=held),
        _update(stale, {"n": 3}, update_time=old),
        _update(missing, {"n": 1}, exists=True),
        _update(new, {"n": 1}, exists=False),
    )
    codes = [status.code for status in answer.status]
    assert codes == [0, _code("FAILED_PRECONDITION"), _code("NOT_FOUND"), 0]
    assert lease.get().update_time == answer.write_results[0].update_time
    assert new.get().update_time == answer.write_results[3].update_time
    assert stale.get().to_dict() == {"n": 2}
    assert not missing.get().exists


def test_a_renewal_chain_with_returned_update_times(raw, collection):
    """The update time that one renewal returns is the precondition of the next."""
    document = collection.document("d")
    update_time = document.set({"n": 0}).update_time
    for number in range(1, 4):
        answer = raw.batch_write(_update(document, {"n": number}, update_time=update_time))
        assert answer.status[0].code == 0
        update_time = answer.write_results[0].update_time
    assert document.get().to_dict() == {"n": 3}


def test_deletes_and_existing_documents(raw, collection):
    """`exists=false` on an existing document fails with AlreadyExists; deletes succeed."""
    document = collection.document("d")
    document.set({"n": 1})
    answer = raw.batch_write(_update(document, {"n": 2}, exists=False))
    assert answer.status[0].code == _code("ALREADY_EXISTS")
    assert raw.batch_write({"delete": document._document_path}).status[0].code == 0
    assert not document.get().exists


def test_the_same_document_twice_is_refused(raw, collection):
    """Writing a document twice fails the whole request with InvalidArgument."""
    document = collection.document("d")
    with pytest.raises(exceptions.InvalidArgument):
        raw.batch_write(_update(document, {"n": 1}), _update(document, {"n": 2}))
    assert not document.get().exists


def test_a_malformed_path_refuses_the_whole_request(raw, collection):
    """A malformed path fails the whole request with InvalidArgument; the valid write is not applied."""
    good = collection.document("good")
    with pytest.raises(exceptions.InvalidArgument):
        raw.batch_write(_update(good, {"n": 1}), _update(collection.document("bad"), {"a:b": 1}))
    assert not good.get().exists


def test_no_writes_is_fine(raw):
    """An empty batch has an empty response."""
    assert list(raw.batch_write().status) == []


@pytest.mark.serves("BatchWriteRequest.labels", "RequestOptions")
def test_labels_and_tags_of_a_request_change_nothing(raw, collection):
    """A request with labels and tags does what it does without them."""
    document = collection.document("d")
    answer = raw.call(
        "batch_write",
        database=raw.database,
        writes=[_update(document, {"n": 1})],
        labels={"team": "charts"},
        request_options={"request_tags": ["a"]},
    )
    assert [status.code for status in answer.status] == [0]
    assert document.get().to_dict() == {"n": 1}
