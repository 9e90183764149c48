"""An upload stores the same object as Google's client does."""

from __future__ import annotations

import pytest
from google.api_core import exceptions as google_errors

from localcloud import Fault
from tests.support.fakes import BUCKET, Tokens, scope_of
from worker_chart_export.backends.storage_session import StorageSession
from worker_chart_export.backends.storage_uploads import insert_object
from worker_chart_export.errors import ObjectRefused

METADATA = {"runId": "r", "note": 'é "quoted" \r\n--x'}
KEPT = ("name", "contentType", "metadata", "crc32c", "md5Hash", "size", "storageClass")


def _insert(bucket, name, content, **about):
    return insert_object(
        bucket, name, content, content_type="image/png", refusal=ObjectRefused, scope=scope_of(30), **about
    )


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n\r\n--", bytes(range(256)) * 1000])
@pytest.mark.parametrize("name", ["charts/r/s/a.png", "ä/#?%2F//../b c"])
def test_an_object_is_that_of_googles_client(objects, name, content):
    """Name, content, type, metadata and checksum, with all characters that a name may have."""
    bucket = objects.bucket(BUCKET)
    theirs = bucket.blob(name)
    theirs.metadata = METADATA
    theirs.upload_from_string(content, content_type="image/png")
    theirs.reload()
    assert _insert(bucket, name, content, metadata=METADATA, generation=theirs.generation)
    ours = bucket.get_blob(name)
    assert ours.generation != theirs.generation
    assert [ours._properties.get(field) for field in KEPT] == [
        theirs._properties.get(field) for field in KEPT
    ]
    assert ours.download_as_bytes() == content


def test_a_generation_that_has_changed_is_not_replaced(objects):
    """The object stays, and the caller learns it."""
    bucket = objects.bucket(BUCKET)
    assert _insert(bucket, "o", b"first")
    assert not _insert(bucket, "o", b"second")
    assert bucket.blob("o").download_as_bytes() == b"first"


def test_a_token_that_is_refused_is_replaced_once(objects, cloud):
    """A token may end before its time: the object is uploaded with a new one."""
    tokens = Tokens()
    url = objects._connection.API_BASE_URL
    objects._http_internal = StorageSession(tokens, url=url, connections=1)
    cloud.storage.faults.add(Fault(method="objects.insert", error=401, times=1))
    assert _insert(objects.bucket(BUCKET), "o", b"x")
    assert tokens.token.endswith("-2")
    assert cloud.storage.calls["objects.insert"] == 2


def test_a_refusal_holds_googles_words(objects):
    """The error names the status and the reason of Cloud Storage."""
    with pytest.raises(ObjectRefused) as refused:
        _insert(objects.bucket("no-such-bucket-here"), "o", b"x")
    assert refused.value.details["httpStatus"] == 404
    assert isinstance(refused.value.__cause__, google_errors.NotFound)
    assert "The specified bucket does not exist" in refused.value.details["storage"]
