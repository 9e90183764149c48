"""The embedded Storage under load, with faults and through restarts. Its calls are in `tests/contract`."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.api_core import exceptions
from google.cloud.storage.retry import DEFAULT_RETRY

from localcloud import Fault
from localcloud.storage.errors import StorageError
from localcloud.storage.preconditions import Preconditions
from localcloud.storage.resumable import Session, Sessions


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


def test_abandoned_uploads_are_bounded():
    """Beyond a bound of sessions or of bytes, those end that were not used for the longest time."""

    def start(sessions, size):
        session = Session(bucket="b", resource={"name": "a"}, wanted=Preconditions(), total=None)
        session.content += bytes(size)
        return sessions.start(session)

    few = Sessions(most=2)
    first, second = start(few, 1), start(few, 1)
    few.get(first)
    third = start(few, 1)
    assert [few.get(kept).total for kept in (first, third)] == [None, None]
    with pytest.raises(StorageError, match="its session has ended"):
        few.get(second)
    small = Sessions(most_bytes=10)
    ids = [start(small, size) for size in (6, 4, 1, 50)]
    assert len(small.get(ids[-1]).content) == 50
    for ended in ids[:-1]:
        with pytest.raises(StorageError, match="its session has ended"):
            small.get(ended)
