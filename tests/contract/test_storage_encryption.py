"""Encryption keys of customers: who has the key gets the content, nobody else."""

from __future__ import annotations

import base64
import hashlib
import os

import pytest
from google.api_core import exceptions
from google.cloud.storage import transfer_manager

KEY, OTHER = os.urandom(32), os.urandom(32)
PART = 5 * 1024 * 1024


def hash_of(key):
    """Return the SHA-256 of a key in base64."""
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def headers(secret=KEY, **changed):
    """Return the headers that supply a key; `changed` ones have another value, None leaves one out."""
    given = {"algorithm": "AES256", "key": base64.b64encode(secret).decode()}
    given["key-sha256"] = hash_of(secret)
    given |= {name.replace("_", "-"): value for name, value in changed.items()}
    return {f"X-Goog-Encryption-{name}": value for name, value in given.items() if value is not None}


def reason(error):
    """Return Google's word for an error."""
    return error.value.errors[0]["reason"]


@pytest.fixture
def encrypted(bucket):
    """Upload an object with a key."""
    blob = bucket.blob("a", encryption_key=KEY)
    blob.upload_from_string(b"content")
    return blob


@pytest.mark.serves("X-Goog-Encryption-Key", "Object.customerEncryption")
def test_only_the_key_reads_an_object(bucket, encrypted, http):
    """An object that was uploaded with a key is read only with it, and names its hash."""
    assert encrypted.download_as_bytes() == b"content"
    stored = http.get(f"/{bucket.name}/a", headers=headers())
    assert (stored.content, stored.headers["X-Goog-Encryption-Key-Sha256"]) == (b"content", hash_of(KEY))
    url = f"/download/storage/v1/b/{bucket.name}/o/a?alt=media"
    for sent, expected in (
        ({}, "resourceIsEncryptedWithCustomerEncryptionKey"),
        (headers(OTHER), "customerEncryptionKeyIsIncorrect"),
    ):
        refused = http.get(url, headers=sent)
        assert (refused.status_code, refused.json()["error"]["errors"][0]["reason"]) == (400, expected)
    bucket.blob("b").upload_from_string(b"x")
    with pytest.raises(exceptions.BadRequest, match="The target object is not encrypted by"):
        bucket.blob("b", encryption_key=KEY).reload()


@pytest.mark.serves("X-Goog-Encryption-Key", "Object.customerEncryption")
def test_metadata_without_the_key_has_no_hashes(bucket, encrypted):
    """Metadata is read and changed without the key. Its checksums are shown only to who has it."""
    assert encrypted.md5_hash == "mgNkuembtIDdJeHwKEyFVQ=="
    for blob in (bucket.get_blob("a"), *bucket.list_blobs()):
        assert blob._properties["customerEncryption"]["keySha256"] == hash_of(KEY)
        assert (blob.crc32c, blob.md5_hash, blob.size) == (None, None, 7)
    encrypted.metadata = {"a": "b"}
    encrypted.patch()
    encrypted.reload()
    assert (encrypted.metadata, encrypted.crc32c is None) == ({"a": "b"}, False)
    with pytest.raises(exceptions.BadRequest) as error:
        bucket.blob("a", encryption_key=OTHER).reload()
    assert reason(error) == "customerEncryptionKeyIsIncorrect"
    bucket.blob("a").delete()


@pytest.mark.serves("X-Goog-Copy-Source-Encryption-Key", "X-Goog-Encryption-Key")
def test_a_rewrite_changes_the_key(bucket, encrypted, http):
    """A rewrite needs the key of its source, and stores with the new one, or with none."""
    rotated = bucket.blob("a", encryption_key=OTHER)
    assert rotated.rewrite(encrypted) == (None, 7, 7)
    assert rotated.download_as_bytes() == b"content"
    for source in (bucket.blob("a", encryption_key=KEY), bucket.blob("a")):
        with pytest.raises(exceptions.BadRequest):
            bucket.blob("b").rewrite(source)
    plain = bucket.blob("b")
    plain.rewrite(rotated)
    assert (plain.download_as_bytes(), plain._properties.get("customerEncryption")) == (b"content", None)
    assert http.post(f"/storage/v1/b/{bucket.name}/o/a/copyTo/b/{bucket.name}/o/c").status_code == 400


@pytest.mark.serves("X-Goog-Encryption-Key")
def test_composing_with_a_key(bucket, encrypted, http):
    """The sources of a compose request all have its key, and the new object has it too."""
    bucket.blob("plain").upload_from_string(b"x")

    def compose(name, *sources, **sent):
        body = {"sourceObjects": [{"name": source} for source in sources]}
        return http.post(f"/storage/v1/b/{bucket.name}/o/{name}/compose", json=body, **sent)

    assert compose("whole", "a", "a", headers=headers()).json()["componentCount"] == 2
    assert bucket.blob("whole", encryption_key=KEY).download_as_bytes() == b"contentcontent"
    # Google's Python client sends no key, so it can't compose such objects.
    with pytest.raises(exceptions.BadRequest, match="is encrypted by a customer-supplied"):
        bucket.blob("none", encryption_key=KEY).compose([encrypted])
    assert compose("none", "a", "plain", headers=headers()).status_code == 400
    assert bucket.get_blob("none") is None


@pytest.mark.serves("X-Goog-Encryption-Key")
def test_uploads_in_chunks_and_parts(bucket, http, tmp_path):
    """Resumable uploads and uploads in parts have the key of their start; another one is refused."""
    content = os.urandom(PART + 1)
    (tmp_path / "content").write_bytes(content)
    chunked = bucket.blob("chunks", encryption_key=KEY, chunk_size=PART)
    chunked.upload_from_filename(str(tmp_path / "content"))
    parts = bucket.blob("parts", encryption_key=KEY)
    transfer_manager.upload_chunks_concurrently(
        str(tmp_path / "content"), parts, chunk_size=PART, worker_type=transfer_manager.THREAD
    )
    for blob in (chunked, parts):
        assert blob.download_as_bytes() == content
        with pytest.raises(exceptions.BadRequest):
            bucket.blob(blob.name).download_as_bytes()
    url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name=c"
    session = http.post(url, headers=headers()).headers["Location"]
    assert http.put(session, content=b"x", headers=headers(OTHER)).status_code == 400
    assert http.put(session, content=b"x").json()["customerEncryption"]["keySha256"] == hash_of(KEY)


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (headers(algorithm="AES128"), "Algorithm"),
        (headers(algorithm=None), "Algorithm"),
        (headers(key=None), "KeyFormat"),
        (headers(key="?" * 44), "KeyFormat"),
        (headers(b"short"), "KeyFormat"),
        (headers(key_sha256=None), "KeySha256"),
        (headers(key_sha256=hash_of(OTHER)), "KeySha256"),
    ],
)
@pytest.mark.serves("X-Goog-Encryption-Key")
def test_malformed_keys_are_refused(bucket, http, sent, word):
    """The algorithm is AES256, the key has 32 bytes, and its hash is that of the key."""
    url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=a"
    refused = http.post(url, content=b"x", headers=sent)
    found = refused.status_code, refused.json()["error"]["errors"][0]["reason"]
    assert found == (400, f"customerEncryption{word}IsInvalid")
    assert bucket.get_blob("a") is None
