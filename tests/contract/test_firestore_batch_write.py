"""BatchWrite: every write succeeds or fails alone."""

from __future__ import annotations

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.firestore_v1 import _helpers


def _update(document, fields, **current):
    write = {
        "update": {"name": document._document_path, "fields": _helpers.encode_dict(fields)},
        "update_mask": {"field_paths": list(fields)},
    }
    return {**write, "current_document": current} if current else write


def _code(name):
    return grpc.StatusCode[name].value[0]


def test_each_write_stands_alone(raw, collection):
    """Good ones are written, each with its own update time; the others say why not."""
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
    """The returned update time is the next precondition."""
    document = collection.document("d")
    update_time = document.set({"n": 0}).update_time
    for number in range(1, 4):
        answer = raw.batch_write(_update(document, {"n": number}, update_time=update_time))
        assert answer.status[0].code == 0
        update_time = answer.write_results[0].update_time
    assert document.get().to_dict() == {"n": 3}


def test_deletes_and_existing_documents(raw, collection):
    """`exists=false` on an existing document is AlreadyExists; deletes work."""
    document = collection.document("d")
    document.set({"n": 1})
    answer = raw.batch_write(_update(document, {"n": 2}, exists=False))
    assert answer.status[0].code == _code("ALREADY_EXISTS")
    assert raw.batch_write({"delete": document._document_path}).status[0].code == 0
    assert not document.get().exists


def test_the_same_document_twice_is_refused(raw, collection):
    """InvalidArgument for the whole request."""
    document = collection.document("d")
    with pytest.raises(exceptions.InvalidArgument):
        raw.batch_write(_update(document, {"n": 1}), _update(document, {"n": 2}))
    assert not document.get().exists


def test_a_malformed_path_refuses_the_whole_request(raw, collection):
    """InvalidArgument, and the good write is not done either."""
    good = collection.document("good")
    with pytest.raises(exceptions.InvalidArgument):
        raw.batch_write(_update(good, {"n": 1}), _update(collection.document("bad"), {"a:b": 1}))
    assert not good.get().exists


def test_no_writes_is_fine(raw):
    """An empty batch has an empty answer."""
    assert list(raw.batch_write().status) == []
