"""Objects: content, settings, preconditions, generations, copies."""

from __future__ import annotations

import base64
import gzip

import google_crc32c
import httpx
import pytest
from google.api_core import exceptions

ODD_NAMES = ["charts/r:1/s 2/a+b%2F&?#é漢.png", "a//b", "x" * 1024, "~!*'()", "[*]"]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.serves("objects.insert", "objects.get", "objects.download", "objects.delete", "Object.metadata")
def test_an_object_is_read_back_under_any_name(bucket, name):
    """An object with any name is read back with content, type, metadata and hashes."""
    blob = bucket.blob(name)
    blob.metadata = {"runId": "r", "é": "ü", "empty": "", "zero": "0"}
    blob.upload_from_string(b"\x89PNG\r\n--x\r\n", content_type="image/png")
    read = bucket.get_blob(name)
    assert read.name == name
    assert read.download_as_bytes() == b"\x89PNG\r\n--x\r\n"
    assert (read.content_type, read.size, read.metadata) == ("image/png", 11, blob.metadata)
    assert read.crc32c == base64.b64encode(google_crc32c.Checksum(b"\x89PNG\r\n--x\r\n").digest()).decode()
    assert (read.generation, read.metageneration) == (blob.generation, 1)
    assert [found.name for found in bucket.list_blobs()] == [name]
    read.delete()
    assert bucket.get_blob(name) is None


@pytest.mark.serves(
    "Object.cacheControl",
    "Object.contentDisposition",
    "Object.contentEncoding",
    "Object.contentLanguage",
    "Object.contentType",
    "Object.customTime",
    "Object.storageClass",
)
def test_settings_of_an_object(bucket, http):
    """All settings are returned, and those that are headers are sent with the content."""
    blob = bucket.blob("a")
    settings = {
        "cacheControl": "no-store",
        "contentDisposition": 'attachment; filename="δ.png"',
        "contentEncoding": "br",
        "contentLanguage": "en",
        "customTime": "2026-01-02T03:04:05.678901Z",
    }
    blob._properties.update(settings, storageClass="ARCHIVE")
    blob._changes.update(settings, ["storageClass"])
    blob.upload_from_string(b"x", content_type="image/png")
    read = http.get(f"/storage/v1/b/{bucket.name}/o/a?projection=full").json()
    assert {name: read[name] for name in settings} == settings
    assert (read["storageClass"], read["contentType"]) == ("ARCHIVE", "image/png")
    with http.stream("GET", f"/download/storage/v1/b/{bucket.name}/o/a?alt=media") as sent:
        headers = sent.headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Disposition"] == 'attachment; filename="δ.png"'
    assert (headers["Content-Encoding"], headers["Content-Language"]) == ("br", "en")
    assert (headers["X-Goog-Storage-Class"], headers["ETag"]) == ("ARCHIVE", read["etag"])


@pytest.mark.serves("objects.patch", "objects.update", "ifMetagenerationMatch")
def test_patching_and_updating_settings(bucket):
    """A patch keeps what it does not name, and null deletes; an update keeps nothing."""
    blob = bucket.blob("a")
    blob.cache_control = "no-store"
    blob.upload_from_string(b"1")
    generation = blob.generation
    blob.metadata = {"k": "v", "gone": "x"}
    blob.patch()
    assert (blob.generation, blob.metageneration, blob.cache_control) == (generation, 2, "no-store")
    blob.metadata = {"gone": None}
    blob.patch(if_metageneration_match=2)
    assert bucket.get_blob("a").metadata == {"k": "v"}
    with pytest.raises(exceptions.PreconditionFailed):
        blob.patch(if_metageneration_match=1)
    fresh = bucket.blob("a")
    fresh.content_language = "en"
    fresh.update()
    assert (fresh.content_language, fresh.cache_control, fresh.metadata) == ("en", None, None)


@pytest.mark.serves("ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch")
def test_preconditions(bucket):
    """412 if what must match does not; 304 if what must not match does; generation 0 is no object."""
    blob = bucket.blob("manifest.json")
    with pytest.raises(exceptions.NotModified):
        blob.upload_from_string(b"0", if_generation_not_match=0)
    blob.upload_from_string(b"1", if_generation_match=0)
    first = blob.generation
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("manifest.json").upload_from_string(b"2", if_generation_match=0)
    blob.upload_from_string(b"2", if_generation_match=first)
    assert blob.generation > first
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("manifest.json").upload_from_string(b"3", if_generation_match=first)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("manifest.json").delete(if_generation_match=first)
    with pytest.raises(exceptions.PreconditionFailed):
        blob.reload(if_metageneration_match=5)
    with pytest.raises(exceptions.NotModified):
        blob.download_as_bytes(if_generation_not_match=blob.generation)
    assert blob.download_as_bytes(if_generation_not_match=first) == b"2"


@pytest.mark.serves("If-Match", "If-None-Match")
def test_etags(bucket):
    """An ETag of an earlier read guards or saves the next one."""
    blob = bucket.blob("a")
    blob.upload_from_string(b"1")
    etag = blob.etag
    with pytest.raises(exceptions.NotModified):
        blob.reload(if_etag_not_match=etag)
    assert blob.download_as_bytes(if_etag_match=etag) == b"1"
    blob.upload_from_string(b"2")
    with pytest.raises(exceptions.PreconditionFailed):
        blob.download_as_bytes(if_etag_match=etag)
    assert blob.download_as_bytes(if_etag_not_match=etag) == b"2"


@pytest.mark.serves("If-Modified-Since", "If-Unmodified-Since", "If-Range", "Last-Modified")
def test_dates(bucket, http):
    """The date or the ETag of an earlier download guards the next one: 304, 412, or the whole object."""
    bucket.blob("a").upload_from_string(b"0123456789")
    url = f"/storage/v1/b/{bucket.name}/o/a?alt=media"
    first = http.get(url)
    date, old = first.headers["Last-Modified"], "Mon, 01 Jan 2024 00:00:00 GMT"

    def statuses(header, *values):
        return [http.get(url, headers={header: value, "Range": "bytes=2-3"}).status_code for value in values]

    assert statuses("If-Modified-Since", date, old, "yesterday") == [304, 206, 206]
    assert statuses("If-Unmodified-Since", date, old, "yesterday") == [206, 412, 206]
    etag = first.headers["ETag"]
    assert statuses("If-Range", date, old, etag, f'"{etag}"', '"other"') == [206, 200, 206, 206, 200]
    both = {"If-Modified-Since": date, "If-None-Match": '"other"'}
    assert http.get(url, headers=both).status_code == 200


@pytest.mark.serves("Bucket.versioning", "generation", "versions")
def test_versions(bucket):
    """With versioning what is replaced or deleted stays, under its generation, until that is deleted."""
    bucket.versioning_enabled = True
    bucket.patch()
    blob = bucket.blob("a")
    blob.upload_from_string(b"1")
    first = blob.generation
    blob.upload_from_string(b"2")
    second = blob.generation
    assert bucket.blob("a", generation=first).download_as_bytes() == b"1"
    assert [each.generation for each in bucket.list_blobs(versions=True)] == [first, second]
    bucket.blob("a").delete()
    assert bucket.get_blob("a") is None
    assert [each.time_deleted is None for each in bucket.list_blobs(versions=True)] == [False, False]
    with pytest.raises(exceptions.Conflict):
        bucket.delete()
    for generation in (first, second):
        bucket.blob("a", generation=generation).delete()
    assert list(bucket.list_blobs(versions=True)) == []


RANGES = {
    "bytes=2-4": (206, b"234", "bytes 2-4/10"),
    "bytes=8-": (206, b"89", "bytes 8-9/10"),
    "bytes=8-99": (206, b"89", "bytes 8-9/10"),
    "bytes=-3": (206, b"789", "bytes 7-9/10"),
    "bytes=-99": (206, b"0123456789", "bytes 0-9/10"),
    "bytes=10-": (416, None, None),
    "bytes=-0": (416, None, None),
    "bytes=0-1,4-5": (200, b"0123456789", None),
    "lines=1-2": (200, b"0123456789", None),
    "bytes=" + "1" * 5000 + "-": (200, b"0123456789", None),
}


@pytest.mark.parametrize("asked", RANGES)
@pytest.mark.serves("Range")
def test_ranges(bucket, http, asked):
    """A range reads some bytes, the last ones too; 416 if it has none; several ranges are ignored."""
    bucket.blob("a").upload_from_string(b"0123456789")
    status, content, shown = RANGES[asked]
    answer = http.get(f"/download/storage/v1/b/{bucket.name}/o/a?alt=media", headers={"Range": asked})
    assert (answer.status_code, answer.headers.get("Content-Range")) == (status, shown)
    if content is not None:
        assert answer.content == content


@pytest.mark.serves("Object.contentEncoding")
def test_gzip_is_expanded_for_clients_that_do_not_accept_it(bucket, http):
    """Without Accept-Encoding: gzip all is expanded, unless the cache control is no-transform."""
    packed = gzip.compress(b"0123456789" * 100)
    for name, cache_control in (("a", None), ("kept", "no-transform")):
        blob = bucket.blob(name)
        blob.content_encoding, blob.cache_control = "gzip", cache_control
        blob.upload_from_string(packed)
    plain = {"Accept-Encoding": "identity", "Range": "bytes=0-3"}
    url = f"/download/storage/v1/b/{bucket.name}/o"
    expanded = http.get(f"{url}/a?alt=media", headers=plain)
    assert (expanded.status_code, expanded.content) == (200, b"0123456789" * 100)
    assert "Content-Encoding" not in expanded.headers
    assert expanded.headers["X-Goog-Stored-Content-Encoding"] == "gzip"
    assert bucket.blob("a").download_as_bytes(raw_download=True) == packed
    with http.stream("GET", f"{url}/kept?alt=media", headers=plain) as kept:
        assert b"".join(kept.iter_raw()) == packed[:4]


@pytest.mark.serves(
    "objects.copy", "objects.rewrite", "objects.move", "ifSourceGenerationMatch", "sourceGeneration"
)
def test_copies(bucket):
    """A copy keeps content and settings, a rewrite may replace the settings, a move deletes the source."""
    source = bucket.blob("a")
    source.metadata = {"k": "v"}
    source.upload_from_string(b"1", content_type="image/png")
    copied = bucket.copy_blob(source, bucket, "b/c", if_source_generation_match=source.generation)
    assert (copied.download_as_bytes(), copied.content_type, copied.metadata) == (
        b"1",
        "image/png",
        {"k": "v"},
    )
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.copy_blob(source, bucket, "b/c", if_generation_match=0)
    source.update_storage_class("NEARLINE")
    assert bucket.get_blob("a").storage_class == "NEARLINE"
    target = bucket.blob("d")
    target.content_type = "text/plain"
    assert target.rewrite(source) == (None, 1, 1)
    assert bucket.get_blob("d").content_type == "text/plain"
    moved = bucket.move_blob(target, "e/f")
    assert (moved.download_as_bytes(), bucket.get_blob("d")) == (b"1", None)
    with pytest.raises(exceptions.NotFound):
        bucket.copy_blob(bucket.blob("none"), bucket, "x")


@pytest.mark.serves("objects.compose")
def test_composing(bucket):
    """Up to 32 objects become one, in their order. It has a component count and no MD5."""
    sources = [bucket.blob(name) for name in "ab"]
    for source in sources:
        source.upload_from_string(source.name.encode())
    composed = bucket.blob("ab")
    with pytest.raises(exceptions.PreconditionFailed):
        composed.compose(sources, if_source_generation_match=[sources[0].generation, 1])
    composed.compose(sources, if_generation_match=0)
    assert (composed.download_as_bytes(), composed.component_count, composed.md5_hash) == (b"ab", 2, None)
    with pytest.raises(exceptions.BadRequest):
        bucket.blob("many").compose([sources[0]] * 33)


@pytest.mark.serves("objects.compose")
@pytest.mark.parametrize(
    ("fields", "status", "location"),
    [
        ({"deleteSourceObjects": True}, 501, "ComposeRequest.deleteSourceObjects"),
        ({"destination": ["a"]}, 400, "destination"),
        ({"sourceObjects": [{"name": "a", "objectPreconditions": "1"}]}, 400, "objectPreconditions"),
        ({"sourceObjects": [{"name": "a", "size": 1}]}, 501, "ComposeRequest.sourceObjects.size"),
        (
            {"sourceObjects": [{"name": "a", "objectPreconditions": {"ifGenerationMatch": 0}}]},
            412,
            "If-Match",
        ),
    ],
)
def test_fields_of_a_compose_request(bucket, http, fields, status, location):
    """Each field of a compose request has its effect, or is refused by name."""
    bucket.blob("a").upload_from_string(b"x")
    body = {"sourceObjects": [{"name": "a"}], **fields}
    error = http.post(f"/storage/v1/b/{bucket.name}/o/b/compose", json=body).json()["error"]
    assert (error["code"], error["errors"][0]["location"]) == (status, location)
    assert [blob.name for blob in bucket.list_blobs()] == ["a"]


@pytest.mark.serves("objects.insert", "objects.get")
@pytest.mark.parametrize("name", ["%E9", "%C3", "%FF/a", "a%ED%A0%80"])
def test_names_that_are_no_utf_8_are_refused(bucket, http, name):
    """An object name that is no UTF-8 is refused; it would become another name.

    The client is told that the connection ends, so that it sends its next request over another one.
    """
    upload = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name={name}"
    refused = http.post(upload, content=b"x")
    assert (refused.status_code, refused.headers["connection"]) == (400, "close")
    assert http.get(f"/storage/v1/b/{bucket.name}/o/{name}").status_code == 400
    assert list(bucket.list_blobs()) == []


@pytest.mark.serves("objects.get", "buckets.get")
def test_missing_objects_and_buckets_are_404(bucket, http):
    """Missing objects and buckets give 404, also for uploads."""
    client = bucket.client
    assert client.lookup_bucket("none") is None
    assert bucket.get_blob("none") is None
    for call in (
        bucket.blob("none").download_as_bytes,
        bucket.blob("none").delete,
        bucket.blob("none").reload,
        lambda: client.bucket("none").blob("a").upload_from_string(b"x"),
        lambda: list(client.list_blobs("none")),
    ):
        with pytest.raises(exceptions.NotFound):
            call()
    error = http.get("/storage/v1/b/none").json()["error"]
    assert (error["code"], error["errors"][0]["reason"]) == (404, "notFound")


@pytest.mark.serves("fields")
def test_partial_responses(bucket, http):
    """`fields` selects parts of a response; 400 if it is malformed."""
    blob = bucket.blob("a")
    blob.metadata = {"k": "v", "l": "w"}
    blob.upload_from_string(b"x")
    url = f"/storage/v1/b/{bucket.name}/o"
    assert http.get(f"{url}/a?fields=name,metadata/k").json() == {"name": "a", "metadata": {"k": "v"}}
    listed = http.get(f"{url}?fields=items(name,size),nextPageToken&maxResults=1").json()
    assert listed == {"items": [{"name": "a", "size": "1"}]}
    for wrong in ("items(", "a,,b", "a)"):
        refused = http.get(url, params={"fields": wrong}).json()["error"]
        assert refused["message"] == f"Invalid field selection {wrong}"


@pytest.mark.serves("batch")
def test_a_batch(bucket, http):
    """A batch makes up to 100 calls, each with an answer of its own."""
    for name in "ab":
        bucket.blob(name).upload_from_string(b"x")
    with bucket.client.batch(raise_exception=False) as batch:
        for name in ("a", "b", "none"):
            bucket.delete_blob(name)
    assert [answer.status_code for answer in batch._responses] == [204, 204, 404]
    assert list(bucket.list_blobs()) == []
    headers = {"Content-Type": "multipart/mixed; boundary=B"}
    for body in (b"", b"--B\r\n\r\nGET /x", b"--B\n\nGET /storage/v1/b HTTP/1.1\n\n" * 101 + b"\n--B--"):
        assert http.post("/batch/storage/v1", content=body, headers=headers).status_code == 400
    no_url = b"--B\n\nGET http://[/ HTTP/1.1\n\n\n--B--"
    answer = http.post("/batch/storage/v1", content=no_url, headers=headers)
    assert b"HTTP/1.1 400" in answer.content


@pytest.mark.serves("objects.get", "objects.insert", "objects.list", "objects.download")
def test_paths_as_other_clients_send_them(embedded, bucket):
    """Paths work without `/storage/v1`, and an object under its public URL, also with HEAD."""
    bucket.blob("a/b").upload_from_string(b"0123")
    base = embedded.storage.url
    assert httpx.get(f"{base}/b/{bucket.name}/o/a%2Fb").json()["size"] == "4"
    assert httpx.get(f"{base}/b/{bucket.name}/o").json()["items"][0]["name"] == "a/b"
    assert httpx.get(f"{base}/{bucket.name}/a/b").content == b"0123"
    head = httpx.head(f"{base}/{bucket.name}/a/b")
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "4", b"")
