"""The embedded Storage through Google's client. There is no official emulator to compare with."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import httpx
import pytest
from google.api_core import exceptions
from google.cloud.storage.retry import DEFAULT_RETRY

from localcloud import Fault

ODD_NAMES = ["charts/r:1/s 2/a+b%2F&?#é漢.png", "a//b", "x" * 1024, "~!*'()", "[*]"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_object_is_read_back_under_any_name(bucket, name):
    """An object with any name is read back with content, type, metadata and hashes."""
    blob = bucket.blob(name)
    blob.metadata = {"runId": "r", "é": "ü"}
    blob.upload_from_string(b"\x89PNG\r\n--x\r\n", content_type="image/png")
    read = bucket.get_blob(name)
    assert read.name == name
    assert read.download_as_bytes() == b"\x89PNG\r\n--x\r\n"
    assert (read.content_type, read.size, read.metadata) == ("image/png", 11, {"runId": "r", "é": "ü"})
    assert read.crc32c == base64.b64encode(google_crc32c.Checksum(b"\x89PNG\r\n--x\r\n").digest()).decode()
    assert (read.generation, read.metageneration) == (blob.generation, 1)
    assert [found.name for found in bucket.list_blobs()] == [name]
    read.delete()
    assert bucket.get_blob(name) is None


def test_create_only_uploads(bucket):
    """A second upload with if_generation_match=0 fails with 412 and leaves the first object."""
    bucket.blob("a").upload_from_string(b"1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("a").upload_from_string(b"2", if_generation_match=0)
    assert bucket.blob("a").download_as_bytes() == b"1"


def test_compare_and_swap(bucket):
    """A write with a generation precondition succeeds only for the stored generation."""
    blob = bucket.blob("manifest.json")
    blob.upload_from_string(b"1", if_generation_match=0)
    first = blob.generation
    blob.upload_from_string(b"2", if_generation_match=first)
    assert blob.generation > first
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("manifest.json").upload_from_string(b"3", if_generation_match=first)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("manifest.json").delete(if_generation_match=first)
    assert blob.download_as_bytes() == b"2"


def test_patching_metadata(bucket):
    """A patch of metadata changes the metageneration and keeps the generation."""
    blob = bucket.blob("a")
    blob.upload_from_string(b"1")
    generation = blob.generation
    blob.metadata = {"k": "v"}
    blob.patch()
    assert (blob.generation, blob.metageneration) == (generation, 2)
    assert bucket.get_blob("a").metadata == {"k": "v"}
    with pytest.raises(exceptions.PreconditionFailed):
        blob.patch(if_metageneration_match=1)


def test_listing_by_prefix_delimiter_and_page(bucket):
    """A listing returns each name once in UTF-8 order, with every page size."""
    names = ["charts/a/1.png", "charts/a/2.png", "charts/b/1.png", "charts/é", "other"]
    for name in names:
        bucket.blob(name).upload_from_string(b"x")
    assert [blob.name for blob in bucket.list_blobs(prefix="charts/a/")] == names[:2]
    assert [blob.name for blob in bucket.list_blobs(page_size=2)] == names
    assert [blob.name for blob in bucket.list_blobs(max_results=3)] == names[:3]
    folders = bucket.list_blobs(prefix="charts/", delimiter="/")
    assert [blob.name for blob in folders] == ["charts/é"]
    assert folders.prefixes == {"charts/a/", "charts/b/"}


def test_missing_objects_and_buckets_are_404(cloud, bucket):
    """Missing objects and buckets give 404, also for uploads."""
    client = bucket.client
    assert bucket.get_blob("none") is None
    assert client.lookup_bucket("none") is None
    assert client.lookup_bucket("charts") is not None
    for call in (
        bucket.blob("none").download_as_bytes,
        bucket.blob("none").delete,
        bucket.blob("none").reload,
        lambda: client.bucket("none").blob("a").upload_from_string(b"x"),
        lambda: list(client.list_blobs("none")),
    ):
        with pytest.raises(exceptions.NotFound):
            call()
    error = httpx.get(f"{cloud.storage.url}/storage/v1/b/none").json()["error"]
    assert (error["code"], error["errors"][0]["reason"]) == (404, "notFound")


def test_buckets_are_made_once_and_deleted_when_empty(bucket):
    """Creating an existing bucket and deleting one with objects give 409."""
    with pytest.raises(exceptions.Conflict):
        bucket.client.create_bucket("charts")
    bucket.blob("a").upload_from_string(b"x")
    with pytest.raises(exceptions.Conflict):
        bucket.delete()
    bucket.blob("a").delete()
    bucket.delete()
    assert list(bucket.client.list_buckets()) == []


def _multipart(resource, content):
    parts = [b"--B\r\nContent-Type: application/json\r\n\r\n" + json.dumps(resource).encode()]
    parts.append(b"\r\n--B\r\nContent-Type: image/png\r\n\r\n" + content + b"\r\n--B--")
    return b"".join(parts)


@pytest.mark.parametrize("wrong", [{"crc32c": "AAAAAA=="}, {"md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}])
def test_content_that_does_not_fit_its_checksum_is_refused(cloud, bucket, wrong):
    """Content with a wrong checksum gives 400 and is not stored."""
    url = f"{cloud.storage.url}/upload/storage/v1/b/charts/o?uploadType=multipart"
    headers = {"Content-Type": 'multipart/related; boundary="B"'}
    answer = httpx.post(url, content=_multipart({"name": "a", **wrong}, b"content"), headers=headers)
    assert answer.status_code == 400
    assert bucket.get_blob("a") is None
    answer = httpx.post(url, content=_multipart({"name": "a"}, b"content"), headers=headers)
    assert answer.json()["contentType"] == "image/png"


@pytest.mark.parametrize(
    ("query", "content_type", "body", "status"),
    [
        ("uploadType=multipart", "image/png", b"x", 400),
        ("uploadType=multipart", "multipart/related; boundary=B", b"nothing", 400),
        (
            "uploadType=multipart",
            "multipart/related; boundary=B",
            b"--B\r\n\r\n{\r\n--B\r\n\r\nx\r\n--B--",
            400,
        ),
        (
            "uploadType=multipart",
            "multipart/related; boundary=B",
            b"--B\r\n\r\n{}\r\n--B\r\n\r\nx\r\n--B--",
            400,
        ),
        (
            "uploadType=multipart&ifGenerationMatch=x",
            "multipart/related; boundary=B",
            _multipart({"name": "a"}, b""),
            400,
        ),
        ("uploadType=resumable", "application/json", b"{}", 501),
    ],
)
def test_uploads_that_make_no_sense_are_refused(cloud, bucket, query, content_type, body, status):
    """Invalid uploads and resumable uploads fail with an error in Google's format."""
    url = f"{cloud.storage.url}/upload/storage/v1/b/{bucket.name}/o?{query}"
    answer = httpx.post(url, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == status


def test_ranges(bucket):
    """Ranges of an object can be read, as a resumed download does."""
    bucket.blob("a").upload_from_string(b"0123456789")
    assert bucket.blob("a").download_as_bytes(start=2, end=4) == b"234"
    into = io.BytesIO()
    bucket.blob("a").download_to_file(into, start=8)
    assert into.getvalue() == b"89"


def test_sixteen_parallel_uploads_do_not_stall(bucket):
    """Sixteen parallel uploads on separate connections do not wait for each other."""
    barrier = threading.Barrier(16)

    def upload(number):
        barrier.wait(10)
        for part in range(5):
            bucket.blob(f"{number}/{part}").upload_from_string(b"x" * 50_000, if_generation_match=0)

    began = time.monotonic()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(upload, range(16)))
    assert len(list(bucket.list_blobs())) == 80
    assert time.monotonic() - began < 10


def test_a_failing_upload_can_be_retried(cloud, bucket):
    """An upload that failed with 503 before the effect succeeds on a retry."""
    cloud.storage.faults.add(Fault(method="objects.insert", match="charts/a", error=503, times=1))
    with pytest.raises(exceptions.ServiceUnavailable):
        bucket.blob("a").upload_from_string(b"x", retry=None)
    assert bucket.get_blob("a") is None
    bucket.blob("a").upload_from_string(b"x", retry=None)


def test_a_lost_answer_leaves_the_upload(cloud, bucket):
    """After a lost response (503 after the effect) Google's retry gets 412 from its own object."""
    cloud.storage.faults.add(Fault(method="objects.insert", error=503, after_effect=True, times=1))
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("a").upload_from_string(b"x", if_generation_match=0, retry=DEFAULT_RETRY.with_timeout(10))
    assert bucket.blob("a").download_as_bytes() == b"x"


def test_a_reset_connection(cloud, bucket):
    """A reset connection gives no response."""
    cloud.storage.faults.add(Fault(method="objects.insert", reset=True, times=1))
    with pytest.raises(Exception, match="Connection aborted"):
        bucket.blob("a").upload_from_string(b"x", retry=None)


def test_a_restart_keeps_or_loses_the_objects(cloud, bucket):
    """A restart keeps the objects or deletes them, on the same port."""
    bucket.blob("a").upload_from_string(b"x")
    cloud.storage.restart()
    assert bucket.blob("a").download_as_bytes() == b"x"
    cloud.storage.restart(lose_state=True)
    assert bucket.client.lookup_bucket("charts") is None


def test_a_stop_ends_calls_that_wait(cloud, bucket):
    """A stop ends delayed calls at once with a closed connection."""
    cloud.storage.faults.add(Fault(method="objects.insert", delay_seconds=60))
    failed = []

    def upload():
        try:
            bucket.blob("a").upload_from_string(b"x", retry=None)
        except Exception as error:  # noqa: BLE001 - which of the HTTP stack's errors it is does not matter
            failed.append(error)

    thread = threading.Thread(target=upload)
    thread.start()
    assert cloud.storage.calls.wait_for("objects.insert", 1, timeout_seconds=10)
    began = time.monotonic()
    cloud.storage.stop()
    thread.join(10)
    assert time.monotonic() - began < 3
    assert len(failed) == 1


def test_chunked_bodies_are_refused(cloud):
    """A chunked body gets 411 and is not stored as an empty object."""
    url = f"{cloud.storage.url}/upload/storage/v1/b/charts/o?uploadType=multipart"
    assert httpx.post(url, content=iter([b"x"])).status_code == 411
