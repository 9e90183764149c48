"""Uploads: multipart, simple and resumable."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import socket
from functools import partial

import google_crc32c
import pytest
from google.api_core import exceptions
from google.cloud.storage import transfer_manager

CHUNK = 256 * 1024
PART = 5 * 1024 * 1024


@pytest.fixture
def upload(bucket, http):
    """Return a function that sends a request to the bucket's upload path."""

    def send(query, content=b"", method="POST", **headers):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.request(
            method, f"/upload/storage/v1/b/{bucket.name}/o?{query}", content=content, headers=names
        )

    return send


@pytest.fixture
def session(upload, http):
    """Start a resumable upload and return a function that sends a chunk to it."""
    started = upload(
        "uploadType=resumable", json.dumps({"name": "a"}).encode(), X_Upload_Content_Type="image/png"
    )
    assert started.status_code == 200

    def put(content=b"", content_range="", method="PUT", **headers):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_range:
            names["Content-Range"] = content_range
        return http.request(method, started.headers["Location"], content=content, headers=names)

    return put


def multipart(resource, content, line_break=b"\r\n", media_headers=(b"Content-Type: image/png",)):
    """Return a multipart body with the boundary B."""
    metadata = [b"Content-Type: application/json", b"", json.dumps(resource).encode()]
    return line_break.join([b"--B", *metadata, b"--B", *media_headers, b"", content, b"--B--"])


MULTIPART = {"Content_Type": 'multipart/related; boundary="B"'}


@pytest.mark.serves("objects.insert", "uploadType=multipart")
@pytest.mark.parametrize("line_break", [b"\r\n", b"\n"])
@pytest.mark.parametrize(
    "media_headers",
    [
        (b"Content-Type: image/png",),
        (b"Content-Transfer-Encoding: binary", b"content-type:image/png", b"X-Other: 1"),
    ],
)
def test_multipart_uploads(bucket, upload, line_break, media_headers):
    """Parts may end with CRLF or LF, and have their headers in any order."""
    content = b"\n--B\r\n\r\nno end\r\n--\r"
    sent = upload(
        "uploadType=multipart", multipart({"name": "a"}, content, line_break, media_headers), **MULTIPART
    )
    assert (sent.status_code, sent.json()["contentType"]) == (200, "image/png")
    assert bucket.blob("a").download_as_bytes() == content


@pytest.mark.serves("objects.insert", "uploadType=media", "name", "contentEncoding")
def test_simple_uploads(bucket, upload):
    """A simple upload is the content alone, of a known length or in chunks; its name is a parameter."""
    query = "uploadType=media&name=a%2Fb&contentEncoding=br"
    for content in (b"0123", iter([b"01", b"23"])):
        sent = upload(query, content, Content_Type="image/png").json()
        assert (sent["name"], sent["contentType"], sent["contentEncoding"]) == ("a/b", "image/png", "br")
        assert bucket.get_blob("a/b").size == 4


@pytest.mark.serves("objects.insert", "Content-Encoding: gzip")
def test_bodies_that_are_compressed_on_the_way(bucket, upload):
    """A body that a client sends as gzip, as the one for Java does, is stored as it was before."""
    body = gzip.compress(multipart({"name": "a"}, b"content"))
    sent = upload("uploadType=multipart", body, Content_Encoding="gzip", **MULTIPART).json()
    assert (sent["size"], sent.get("contentEncoding")) == ("7", None)
    assert bucket.blob("a").download_as_bytes() == b"content"
    assert upload("uploadType=media&name=a", b"x", Content_Encoding="gzip").status_code == 400


@pytest.mark.serves("objects.insert", "crc32c", "md5Hash", "X-Goog-Hash")
@pytest.mark.parametrize("wrong", [{"crc32c": "AAAAAA=="}, {"md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}])
def test_content_that_does_not_fit_its_checksum_is_refused(bucket, upload, wrong):
    """Content with a wrong checksum, in the metadata or in a header, gives 400 and is not stored."""
    sent = upload("uploadType=multipart", multipart({"name": "a", **wrong}, b"content"), **MULTIPART)
    assert sent.status_code == 400
    kind = "crc32c" if "crc32c" in wrong else "md5"
    header = {"X_Goog_Hash": f"{kind}={next(iter(wrong.values()))}"}
    assert upload("uploadType=media&name=a", b"content", **header).status_code == 400
    assert bucket.get_blob("a") is None
    md5 = base64.b64encode(hashlib.md5(b"content", usedforsecurity=False).digest()).decode()
    crc32c = base64.b64encode(google_crc32c.Checksum(b"content").digest()).decode()
    header = {"X_Goog_Hash": f"crc32c={crc32c},md5={md5}"}
    assert upload("uploadType=media&name=a", b"content", **header).json()["md5Hash"] == md5


@pytest.mark.serves("uploadType=resumable")
def test_google_s_client_uploads_nine_megabytes_in_chunks(bucket):
    """Google's client uploads more than 8 MB as a resumable upload, whole and in chunks."""
    content = os.urandom(9 * 1024 * 1024 + 1)
    for chunk_size in (None, 4 * 1024 * 1024):
        blob = bucket.blob("big", chunk_size=chunk_size)
        blob.upload_from_string(content, content_type="image/png", checksum="crc32c")
        read = bucket.get_blob("big")
        assert (read.size, read.content_type) == (len(content), "image/png")
        assert blob.download_as_bytes(checksum="crc32c") == content
    with bucket.blob("stream").open("wb", chunk_size=CHUNK) as stream:  # its size is known only at the end
        stream.write(content[: CHUNK + 5])
    assert bucket.blob("stream").download_as_bytes() == content[: CHUNK + 5]


@pytest.mark.serves("uploadType=resumable", "Content-Range")
def test_a_resumable_upload_goes_on_after_a_break(bucket, session):
    """The state of an upload says what has arrived; what is sent twice counts once."""
    content = os.urandom(2 * CHUNK + 7)
    assert session(content_range="bytes */*").headers.get("Range") is None
    first = session(content[:CHUNK], f"bytes 0-{CHUNK - 1}/*")
    assert (first.status_code, first.headers["Range"]) == (308, f"bytes=0-{CHUNK - 1}")
    override = session(content_range="bytes */*", X_GUploader_No_308="yes")
    assert (override.status_code, override.headers["X-HTTP-Status-Code-Override"]) == (200, "308")
    gap = session(content[-7:], f"bytes {2 * CHUNK}-{len(content) - 1}/{len(content)}")
    assert gap.status_code == 503
    partial = session(content[100 : 2 * CHUNK + 1], f"bytes 100-{2 * CHUNK}/{len(content)}")
    assert partial.headers["Range"] == f"bytes=0-{2 * CHUNK - 1}"  # whole multiples of 256 KiB are kept
    done = session(content[2 * CHUNK :], f"bytes {2 * CHUNK}-{len(content) - 1}/{len(content)}")
    assert (done.status_code, done.json()["contentType"]) == (200, "image/png")
    assert session(content_range=f"bytes */{len(content)}").json() == done.json()
    assert bucket.blob("a").download_as_bytes() == content


@pytest.mark.serves("uploadType=resumable", "Content-Range")
def test_a_resumable_upload_in_one_request(bucket, session):
    """A stream of unknown length ends the object with its own end."""
    done = session(iter([b"0123", b"456"]), "bytes 0-*/*")
    assert (done.status_code, done.json()["size"]) == (200, "7")
    assert bucket.blob("a").download_as_bytes() == b"0123456"


@pytest.mark.serves("uploadType=resumable", "Content-Range")
@pytest.mark.parametrize(
    ("size", "content_range"),
    [(10, "bytes 0-9/*"), (10, "bytes 0-8/10"), (10, "bytes 5-14/12"), (10, "0-9"), (0, "bytes 9-0/10")],
)
def test_chunks_that_do_not_fit_are_refused(session, size, content_range):
    """A range that does not fit its chunk gives 400, like a chunk under 256 KiB that is not the last."""
    refused = session(b"x" * size, content_range)
    assert refused.status_code == 400
    assert refused.json()["error"]["errors"][0]["location"] == "Content-Range"


@pytest.mark.serves("uploadType=resumable", "Content-Range")
def test_a_body_without_its_range_replaces_nothing(bucket, session):
    """A request without Content-Range is the whole object, so it is refused once something has arrived."""
    content = os.urandom(CHUNK + 1)
    session(content[:CHUNK], f"bytes 0-{CHUNK - 1}/*")
    refused = session(content)
    assert refused.status_code == 400
    assert refused.json()["error"]["errors"][0]["location"] == "Content-Range"
    assert session(content[CHUNK:], f"bytes {CHUNK}-{CHUNK}/{CHUNK + 1}").status_code == 200
    assert bucket.blob("a").download_as_bytes() == content


@pytest.mark.serves("uploadType=resumable")
def test_a_cancelled_upload(bucket, session, upload):
    """A cancelled upload answers 499 and leaves no object; an unknown one answers 404."""
    session(b"x" * CHUNK, f"bytes 0-{CHUNK - 1}/*")
    assert session(method="DELETE").status_code == 499
    assert session(content_range="bytes */*").status_code == 499
    assert bucket.get_blob("a") is None
    assert upload("uploadType=resumable&upload_id=x", method="PUT").status_code == 404


@pytest.mark.serves("uploadType=resumable", "ifGenerationMatch", "X-Goog-Hash")
def test_preconditions_and_checksums_of_resumable_uploads(bucket, upload, session):
    """Preconditions are checked at the start and at the end, a checksum at the end."""
    assert session(b"01", "bytes 0-1/2", X_Goog_Hash="crc32c=AAAAAA==").status_code == 400
    assert bucket.get_blob("a") is None
    started = upload("uploadType=resumable&name=a&ifGenerationMatch=0")
    bucket.blob("a").upload_from_string(b"other")
    late = upload(started.headers["Location"].partition("?")[2], b"mine", method="PUT")
    assert late.status_code == 412
    assert upload("uploadType=resumable&name=a&ifGenerationMatch=0").status_code == 412
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("a").upload_from_string(b"x" * 9 * 1024 * 1024, if_generation_match=0)


@pytest.mark.serves("objects.parts")
def test_google_s_client_uploads_parts_in_parallel(bucket, tmp_path):
    """Google's client sends a large file in parts, with settings; the object has no MD5."""
    content = os.urandom(2 * PART + 5)
    tmp_path.joinpath("file").write_bytes(content)
    blob = bucket.blob("a b/é?")
    blob.content_type, blob.metadata, blob.storage_class = "image/png", {"k": "v"}, "NEARLINE"
    upload = partial(transfer_manager.upload_chunks_concurrently, tmp_path / "file", blob, chunk_size=PART)
    upload(worker_type=transfer_manager.THREAD, max_workers=3, checksum="crc32c")
    read = bucket.get_blob("a b/é?")
    assert (read.content_type, read.metadata, read.storage_class) == ("image/png", {"k": "v"}, "NEARLINE")
    assert (read.size, read.md5_hash) == (len(content), None)
    assert read.download_as_bytes(checksum="crc32c") == content


@pytest.fixture
def parts(bucket, http):
    """Begin an upload in parts and return a function that sends a request to it."""
    url = f"/{bucket.name}/a"
    upload_id = http.post(f"{url}?uploads").text.partition("<UploadId>")[2].partition("<")[0]

    def send(method, query="", content=b"", **headers):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.request(method, f"{url}?uploadId={upload_id}{query}", content=content, headers=names)

    return send


def parts_list(*parts):
    """Return the list of parts that ends an upload."""
    items = [f"<Part><ETag>{etag}</ETag><PartNumber>{number}</PartNumber></Part>" for number, etag in parts]
    return f"<CompleteMultipartUpload>{''.join(items)}</CompleteMultipartUpload>".encode()


@pytest.mark.serves("objects.parts")
def test_parts_are_joined_in_order_once(bucket, parts):
    """Parts may come in any order and again; the end of an upload may be asked for again."""
    last = parts("PUT", "&partNumber=7", b"end").headers["ETag"]
    parts("PUT", "&partNumber=2", b"old")
    first = parts("PUT", "&partNumber=2", b"x" * PART).headers["ETag"]
    listed = parts_list((2, first), (7, last))
    answers = {parts("POST", content=listed).text for _ in range(2)}
    assert len(answers) == 1
    assert bucket.blob("a").download_as_bytes() == b"x" * PART + b"end"


@pytest.mark.serves("objects.parts")
def test_parts_that_are_wrong_are_refused(bucket, parts, http):
    """A wrong part, a wrong list of parts and a cancelled upload leave no object."""
    etag = parts("PUT", "&partNumber=1", b"a").headers["ETag"]
    other = parts("PUT", "&partNumber=2", b"b").headers["ETag"]
    wrong = [
        *(parts_list(), parts_list((1, other)), parts_list((3, etag)), parts_list((2, other), (1, etag))),
        *(parts_list((1, etag), (2, other)), b"<a", b"<!DOCTYPE a><a/>"),
    ]
    assert [parts("POST", content=body).status_code for body in wrong] == [400] * len(wrong)
    assert parts("PUT", "&partNumber=0", b"a").status_code == 400
    assert "<Code>BadDigest</Code>" in parts("PUT", "&partNumber=1", b"a", X_Goog_Hash="crc32c=AAAAAA==").text
    assert parts("DELETE").status_code == 204
    assert parts("PUT", "&partNumber=1", b"a").status_code == 499
    assert http.post("/none/a?uploads").status_code == 404
    assert http.post(f"/{bucket.name}/a?uploads", headers={"x-goog-acl": "private"}).status_code == 501
    assert list(bucket.list_blobs()) == []


INCOMPLETE = [
    b"Content-Length: 10\r\n\r\nabc",
    b"Content-Length: -1\r\n\r\nabc",
    b"Content-Length: 3\r\nContent-Length: 2\r\n\r\nabc",
    b"Content-Length: 99999999999999999999\r\n\r\nabc",
    b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nA\r\nabc",
    b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
]


@pytest.mark.serves("objects.insert")
@pytest.mark.parametrize("rest", INCOMPLETE)
def test_a_body_without_its_end_is_not_stored(bucket, http, rest):
    """An upload whose sender dies, or whose length is malformed, gives 400 and stores nothing."""
    path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=a"
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as sender:
        sender.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode() + rest)
        sender.shutdown(socket.SHUT_WR)
        with sender.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 400 ")
    assert bucket.get_blob("a") is None


BAD_UPLOADS = [
    ("uploadType=multipart", "image/png", b"x"),
    ("uploadType=multipart", "multipart/related; boundary=B", b"nothing"),
    ("uploadType=multipart", "multipart/related; boundary=B", b"--B\r\n\r\n{\r\n--B\r\n\r\nx\r\n--B--"),
    ("uploadType=multipart", "multipart/related; boundary=B", b"--B\r\n\r\n[]\r\n--B\r\n\r\nx\r\n--B--"),
    ("uploadType=multipart", "multipart/related; boundary=B", multipart({}, b"x")),
    ("uploadType=multipart", "multipart/related; boundary=B", multipart({"name": "."}, b"x")),
    (
        "uploadType=multipart",
        "multipart/related; boundary=B",
        multipart({"name": "a", "bucket": "other"}, b"x"),
    ),
    (
        "uploadType=multipart",
        "multipart/related; boundary=B",
        multipart({"name": "a", "metadata": {"k": 1}}, b""),
    ),
    (
        "uploadType=multipart",
        "multipart/related; boundary=B",
        multipart({"name": "a", "customTime": "now"}, b""),
    ),
    (
        "uploadType=multipart",
        "multipart/related; boundary=B",
        multipart({"name": "a", "contentType": "a/b"}, b""),
    ),
    ("uploadType=resumable", "application/json", rb'{"name": "\ud800"}'),
    ("uploadType=resumable", "application/json", b'{"name": ' + b"[" * 100_000),
    ("uploadType=resumable", "application/json", b'{"name": "a", "cacheControl": "a\\r\\nX: b"}'),
    (
        "uploadType=multipart",
        "multipart/related; boundary=B",
        multipart({"name": "a", "storageClass": ["STANDARD"]}, b"x"),
    ),
    ("uploadType=media&name=a&ifGenerationMatch=" + "9" * 5000, "image/png", b"x"),
    ("uploadType=media&name=a&ifGenerationMatch=x", "image/png", b"x"),
    ("uploadType=media", "image/png", b"x"),
    ("uploadType=some&name=a", "image/png", b"x"),
    ("name=a", "image/png", b"x"),
    ("uploadType=resumable", "application/json", b"{}"),
    ("uploadType=resumable&name=a", "application/json", b"x"),
]


@pytest.mark.serves("objects.insert")
@pytest.mark.parametrize(("query", "content_type", "body"), BAD_UPLOADS)
def test_malformed_uploads_are_refused(bucket, upload, query, content_type, body):
    """Malformed uploads give 400 in Google's format and store nothing."""
    answer = upload(query, body, Content_Type=content_type)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)
    assert list(bucket.list_blobs()) == []
