"""The probe of the charts bucket: when it is made, what it leaves, and what it concludes."""

from __future__ import annotations

import re

import pytest

from localcloud.faults import Fault
from tests.support.fakes import scope_of
from tests.unit.conftest import BUCKET
from worker_chart_export.errors import (
    BackendUnavailable,
    BucketUnusable,
    Interrupted,
    ObjectRefused,
    StepTimedOut,
)
from worker_chart_export.outputs.bucket_probe import PROBE_FOLDER, BucketProbe

pytestmark = pytest.mark.usefixtures("short_backoff")

INSERT, DELETE = "objects.insert", "objects.delete"


@pytest.fixture
def bucket(objects):
    """Return the bucket of Google's client."""
    return objects.bucket(BUCKET)


@pytest.fixture
def probe(bucket):
    """Return the probe of a worker that has stored nothing yet."""
    return BucketProbe(bucket)


def _names(bucket):
    return [blob.name for blob in bucket.list_blobs()]


def _upload_refused(probe):
    with pytest.raises(ObjectRefused), probe.watching(ObjectRefused, scope_of()):
        raise ObjectRefused("refused")


def test_one_probe_is_made_and_leaves_nothing(probe, bucket, cloud):
    """The first requirement makes a probe, later ones make no call."""
    for _ in range(3):
        probe.require(scope_of())
    assert (cloud.storage.calls[INSERT], cloud.storage.calls[DELETE]) == (1, 1)
    assert _names(bucket) == []


def test_a_stopped_step_makes_no_probe(probe, cloud):
    """The time and the stop of the step count for the probe too."""
    scope = scope_of()
    scope.stop(Interrupted("stop"))
    with pytest.raises(Interrupted):
        probe.require(scope)
    assert cloud.storage.calls[INSERT] == 0


def test_an_upload_proves_as_much_as_a_probe(probe, cloud):
    """After a successful upload no probe is made."""
    with probe.watching(ObjectRefused, scope_of()):
        pass
    probe.require(scope_of())
    assert cloud.storage.calls[INSERT] == 0


def test_a_probe_that_may_not_be_deleted_stays_and_serves_again(probe, bucket, cloud):
    """Without the right to delete, one object stays however many probes are made."""
    cloud.storage.faults.add(Fault(method=DELETE, error=403))
    for _ in range(3):
        probe.probe()
    (blob,) = bucket.list_blobs()
    assert re.fullmatch(rf"{re.escape(PROBE_FOLDER)}[0-9a-f]{{16}}", blob.name)
    assert blob.content_type == "text/plain"


def test_the_refusal_of_one_object_is_left_as_it_is(probe, cloud):
    """A refused object is followed by a probe; if that is stored, the refusal is that of the object."""
    _upload_refused(probe)
    assert cloud.storage.calls[INSERT] == 1
    probe.require(scope_of())
    assert cloud.storage.calls[INSERT] == 1


@pytest.mark.parametrize("status", [400, 403, 404])
def test_the_refusal_of_every_object_is_raised_until_one_is_taken(probe, cloud, status):
    """While every object is refused, each requirement fails, also without another upload."""
    fault = cloud.storage.faults.add(Fault(method=INSERT, error=status))
    with pytest.raises(BucketUnusable), probe.watching(ObjectRefused, scope_of()):
        raise ObjectRefused("refused")
    for _ in range(2):
        with pytest.raises(BucketUnusable):
            probe.require(scope_of())
    cloud.storage.faults.remove(fault)
    probe.require(scope_of())


@pytest.mark.parametrize(
    ("details", "why"),
    [
        ({"httpStatus": 404}, "there is no such bucket (404)"),
        ({"httpStatus": 403}, "the account lacks a permission (403)"),
        ({"httpStatus": 409, "storage": "409 a conflict"}, "409 a conflict"),
        ({"httpStatus": 409}, "refused"),
        ({}, "refused"),
    ],
)
def test_why_the_bucket_takes_no_object(probe, monkeypatch, details, why):
    """The reason is for the operator: it names the status, or what Cloud Storage said."""

    def refuse(*_arguments, **_more):
        raise ObjectRefused("refused", **details)

    monkeypatch.setattr("worker_chart_export.outputs.bucket_probe.insert_object", refuse)
    with pytest.raises(BucketUnusable) as caught:
        probe.probe()
    assert str(caught.value).endswith(f"takes no objects: {why}")


def test_an_outage_makes_the_next_chart_wait_for_a_probe(probe, cloud):
    """After an outage it is not known whether the bucket takes objects."""
    with pytest.raises(BackendUnavailable), probe.watching(ObjectRefused, scope_of()):
        raise BackendUnavailable("storage", "503")
    probe.require(scope_of())
    assert cloud.storage.calls[INSERT] == 1


def test_another_refusal_makes_the_next_chart_wait_for_a_probe(probe, cloud):
    """A refused listing casts doubt, so a probe is made."""
    probe.require(scope_of())
    probe.doubt()
    probe.require(scope_of())
    assert cloud.storage.calls[INSERT] == 2


def test_a_storage_that_stays_unavailable_is_no_refusal(probe, cloud):
    """A probe of an unavailable service ends in time and says so."""
    cloud.storage.faults.add(Fault(method=INSERT, error=503))
    with pytest.raises(BackendUnavailable, match=r"^storage is unavailable") as caught:
        probe.require(scope_of(1))
    assert not isinstance(caught.value, BucketUnusable)


@pytest.mark.parametrize("is_of_a_step", [False, True])
def test_a_probe_without_time_is_no_end_of_a_step(probe, monkeypatch, is_of_a_step):
    """A process that stood still before the call knows nothing of the bucket, and the step has time left."""
    monkeypatch.setattr("worker_chart_export.outputs.bucket_probe.PROBE_SECONDS", 0.0)
    with pytest.raises(BackendUnavailable, match=r"no time for a probe"):
        probe.probe(scope_of() if is_of_a_step else None)


def test_a_probe_without_time_of_a_step_whose_time_has_ended(probe, monkeypatch):
    """It is the step's time that has ended."""
    monkeypatch.setattr("worker_chart_export.outputs.bucket_probe.PROBE_SECONDS", 0.0)
    with pytest.raises(StepTimedOut):
        probe.probe(scope_of(0.0))
