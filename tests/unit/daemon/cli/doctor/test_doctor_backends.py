"""The checks of `doctor` on the embedded cloud with one thing wrong."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from google.iam.v1 import iam_policy_pb2

from daemon.cli.doctor.checks.firestore import SCRATCH, check_indexes, try_conditional_writes, write_verdict
from daemon.cli.doctor.checks.pubsub import check_consume, check_quarantine, check_subscription
from daemon.cli.doctor.checks.storage import CHECKS, check_bucket, try_objects
from daemon.cli.doctor.results import Fixes
from daemon.cli.doctor.scratch import Scratch
from daemon.settings import BucketSettings, FirestoreSettings, PubsubSettings
from daemon.subscription.admin import read_topic
from localcloud import Fault
from localcloud.grpc_server import Method
from localcloud.pubsub.messages import Topic
from localcloud.pubsub.service import PubsubService
from tests.support.cloud.clouds import PROJECT, clients_find
from tests.support.fakes import BUCKET, scope_of
from worker_chart_export.errors import BackendUnavailable, Interrupted

PATH = f"projects/{PROJECT}/subscriptions/charts"
TOPIC = f"projects/{PROJECT}/topics/steps"


@pytest.fixture(autouse=True)
def _on_the_cloud(cloud):
    """Make every new client use the test's own cloud."""
    with clients_find(cloud.environment()):
        yield


@pytest.fixture
def pubsub():
    """Return settings that name the subscription."""
    return PubsubSettings(google_cloud_project=PROJECT, pubsub_subscription=PATH)


@pytest.fixture
def firestore_settings():
    """Return settings that name the default database."""
    return FirestoreSettings(google_cloud_project=PROJECT)


@pytest.fixture
def run():
    """Return a run of `doctor` that can be stopped."""
    return scope_of()


@pytest.fixture
def scratch(run):
    """Return a unique scratch name."""
    return Scratch(run=run)


def scratch_documents(documents):
    """Return the remaining documents of the scratch collection."""
    return list(documents.collection(SCRATCH).stream())


def test_conditional_writes_leave_nothing_behind(documents, scratch):
    """The trial of conditional writes makes four commits and deletes its document."""
    trial = try_conditional_writes(documents, scratch)
    assert (trial.error, trial.stale_accepted, trial.left_over) == (None, False, None)
    assert scratch_documents(documents) == []


def test_a_document_whose_creation_got_no_answer_is_deleted_too(cloud, documents, scratch):
    """A document whose creation got no response is deleted, because it may have been written."""
    cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", after_effect=True, times=1))
    trial = try_conditional_writes(documents, scratch)
    assert trial.error is not None
    assert trial.left_over is None
    assert scratch_documents(documents) == []


def test_a_database_that_ignores_preconditions_is_seen(cloud, documents, scratch):
    """A database that ignores preconditions or accepts everything fails the check."""
    cloud.firestore.faults.add(Fault(method="Commit", drop=True, skip=2, times=1))
    assert try_conditional_writes(documents, scratch).stale_accepted


def test_a_document_that_can_t_be_deleted_is_named(cloud, documents, scratch):
    """A document that can't be deleted is named by its path."""
    cloud.firestore.faults.add(Fault(method="Commit", error="PERMISSION_DENIED", skip=3))
    trial = try_conditional_writes(documents, scratch)
    (left,) = scratch_documents(documents)
    assert trial.path == left.reference.path
    assert trial.left_over is not None


def test_a_slow_database_ends_the_trial_in_time_and_the_document_is_deleted(cloud, documents, run):
    """On a slow database the trial ends in time, and time is left to delete the document."""
    cloud.firestore.faults.add(Fault(method="Commit", delay_seconds=1.5, skip=1, times=1))
    cloud.firestore.faults.add(Fault(method="Commit", delay_seconds=0.8, skip=1))
    trial = try_conditional_writes(documents, Scratch(run=run, trial_seconds=0.3))
    assert isinstance(trial.error, BackendUnavailable)
    assert trial.left_over is None
    assert scratch_documents(documents) == []


def test_a_document_whose_deletion_takes_too_long_is_named(cloud, documents, run):
    """A document whose deletion takes too long is named, because its state is unknown."""
    cloud.firestore.faults.add(Fault(method="Commit", delay_seconds=1.5, skip=1))
    scratch = Scratch(run=run, trial_seconds=0.3, clean_up_seconds=0.3)
    found = write_verdict(try_conditional_writes(documents, scratch), Fixes())
    assert (found.status, found.left_over) == ("failure", f"{SCRATCH}/{scratch.name}")


def test_a_stop_ends_the_trial_at_the_next_commit_and_the_document_is_deleted(cloud, documents, run, scratch):
    """A stop ends the trial at the next commit: only the creation and the deletion run."""
    stop = Fault(method="Commit", times=1, before=lambda _: run.stop(Interrupted("enough")))
    cloud.firestore.faults.add(stop)
    trial = try_conditional_writes(documents, scratch)
    assert isinstance(trial.error, Interrupted)
    assert cloud.firestore.calls.as_dict()["Commit"] == 2
    assert scratch_documents(documents) == []


def test_a_missing_index_is_a_failure_with_its_fix(cloud, firestore_settings):
    """A missing index fails the rescue's own query, and Firestore's message comes with the fix."""
    cloud.firestore.faults.add(
        Fault(method="RunQuery", error="FAILED_PRECONDITION", message="The query requires an index")
    )
    index, exemption = check_indexes(firestore_settings, None)
    assert (index.check, index.status) == ("firestore.lease-index", "failure")
    assert "The query requires an index" in index.summary
    assert "deploy/firestore.indexes.json" in index.fix
    assert exemption.status == "not_checkable"


def test_an_emulator_proves_no_index(firestore_settings):
    """On an emulator the index can't be checked, because the query works without it."""
    index, _ = check_indexes(firestore_settings, "127.0.0.1:1")
    assert (index.check, index.status) == ("firestore.lease-index", "not_checkable")
    index, _ = check_indexes(firestore_settings, None)
    assert index.status == "ok"


def test_objects_are_created_once_read_listed_and_deleted(cloud, objects, scratch):
    """The trial creates an object once, reads, lists and deletes it."""
    settings = BucketSettings(google_cloud_project=PROJECT, charts_bucket=f"gs://{BUCKET}")
    found = check_bucket(settings, None, scratch)
    assert [(result.check, result.status) for result in found] == [(check, "ok") for check in CHECKS]
    assert cloud.storage.calls.as_dict()["objects.insert"] == 2
    assert list(objects.list_blobs(BUCKET)) == []


@pytest.mark.parametrize(("method", "field"), [("objects.download", "read"), ("objects.list", "listed")])
def test_an_object_is_deleted_although_it_can_t_be_read(cloud, objects, method, field, scratch):
    """An object that can't be read is deleted all the same, and only the read fails."""
    cloud.storage.faults.add(Fault(method=method, error=403))
    trial = try_objects(objects, BUCKET, scratch)
    cloud.storage.faults.clear()
    assert [name for name in ("create", "read", "listed", "delete") if getattr(trial, name)] == [field]
    assert list(objects.list_blobs(BUCKET)) == []


def test_an_object_that_can_t_be_deleted_is_named(cloud, objects, scratch):
    """An object that can't be deleted is named, because its account can't replace manifests either."""
    cloud.storage.faults.add(Fault(method="objects.delete", error=403))
    trial = try_objects(objects, BUCKET, scratch)
    (left,) = objects.list_blobs(BUCKET)
    assert trial.uri == f"gs://{BUCKET}/{left.name}"
    assert trial.delete is not None
    assert (trial.create, trial.read, trial.listed) == (None, None, None)


def test_an_object_whose_creation_was_cut_off_is_deleted_too(cloud, objects, scratch):
    """An object whose creation got no response is deleted, because the creation took effect."""
    cloud.storage.faults.add(Fault(method="objects.insert", error=403, after_effect=True))
    trial = try_objects(objects, BUCKET, scratch)
    assert (trial.create is not None, trial.delete) == (True, None)
    assert list(objects.list_blobs(BUCKET)) == []


def test_an_object_without_a_response_to_creation_and_deletion_is_named(cloud, objects, run):
    """An object is named when neither its creation nor its deletion got a response."""
    cloud.storage.faults.add(Fault(method="objects.insert", error=503, after_effect=True))
    cloud.storage.faults.add(Fault(method="objects.delete", error=503))
    scratch = Scratch(run=run, trial_seconds=0.6, clean_up_seconds=0.6)
    trial = try_objects(objects, BUCKET, scratch)
    (left,) = objects.list_blobs(BUCKET)
    assert trial.uri == f"gs://{BUCKET}/{left.name}"
    assert isinstance(trial.delete, BackendUnavailable)


def test_a_stop_ends_the_trial_at_the_next_request_and_the_object_is_deleted(cloud, objects, run, scratch):
    """A stop ends the trial at the next request, and the object is deleted."""

    def stop_once_created():
        if cloud.storage.calls.as_dict().get("objects.insert"):
            raise Interrupted("enough")

    run.guard(stop_once_created)
    trial = try_objects(objects, BUCKET, scratch)
    assert isinstance(trial.create, Interrupted)
    calls = cloud.storage.calls.as_dict()
    assert (calls["objects.insert"], calls["objects.delete"], "objects.download" in calls) == (1, 1, False)
    assert list(objects.list_blobs(BUCKET)) == []


def test_an_account_that_may_not_read_the_subscription_may_still_consume_it(cloud, pubsub):
    """An account that may consume but not read the subscription passes, with a remark."""
    cloud.pubsub.faults.add(Fault(method="GetSubscription", error="PERMISSION_DENIED"))
    found = check_subscription(pubsub, None)
    assert {result.status for result in found} == {"not_checkable"}
    assert "roles/pubsub.viewer" in found[0].fix
    cloud.pubsub.faults.add(Fault(method="ModifyAckDeadline", error="PERMISSION_DENIED"))
    (consume,) = check_consume(pubsub, None)
    assert (consume.check, consume.status) == ("pubsub.consume", "failure")
    assert "roles/pubsub.subscriber" in consume.fix


class PubsubWithRights(PubsubService):
    """A Pub/Sub with permissions, which the emulators do not have."""

    granted = True

    def methods(self):
        """Also return IAM's method, in Google's format."""
        iam = Method(
            request=iam_policy_pb2.TestIamPermissionsRequest,
            response=iam_policy_pb2.TestIamPermissionsResponse,
            handle=self._test,
            subject=lambda request: request.resource,
        )
        return {**super().methods(), "google.iam.v1.IAMPolicy": {"TestIamPermissions": iam}}

    def _test(self, request):
        permissions = request.permissions if self.granted else []
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=permissions)


@contextmanager
def pubsub_with_rights():
    """Return such a Pub/Sub with the topic."""
    service = PubsubWithRights()
    service.start()
    try:
        with clients_find({"PUBSUB_EMULATOR_HOST": service.address}):
            service._topics.create_topic(Topic(name=TOPIC))
            yield service
    finally:
        service.stop()


def test_the_right_to_publish_is_checked_through_iam():
    """The right to publish is checked through IAM without a message."""
    with pubsub_with_rights() as service:
        assert read_topic(TOPIC).may_publish is True
        service.granted = False
        assert read_topic(TOPIC).may_publish is False
        assert "Publish" not in service.calls.as_dict()


def test_a_topic_is_seen_as_far_as_the_rights_go():
    """A topic is reported as missing or as unreadable, depending on the rights."""
    with pubsub_with_rights() as service:
        assert (read_topic(TOPIC).exists, read_topic(TOPIC).subscriptions) == (True, 0)
        assert read_topic(f"{TOPIC}-gone").exists is False
        service.faults.add(Fault(method="GetTopic", error="PERMISSION_DENIED"))
        assert (read_topic(TOPIC).exists, read_topic(TOPIC).subscriptions) == (None, None)
        service.faults.clear()
        service.faults.add(Fault(method="ListTopicSubscriptions", error="PERMISSION_DENIED"))
        assert (read_topic(TOPIC).exists, read_topic(TOPIC).subscriptions) == (True, None)


def test_an_unreadable_topic_of_another_project_is_no_failure():
    """An unreadable topic of another project is no failure, because IAM may refuse there."""
    settings = PubsubSettings(
        google_cloud_project=PROJECT, pubsub_subscription=PATH, quarantine_topic="projects/others/topics/bad"
    )
    with pubsub_with_rights() as service:
        service.faults.add(Fault(method="GetTopic", error="PERMISSION_DENIED"))
        service.faults.add(Fault(method="TestIamPermissions", error="PERMISSION_DENIED"))
        (found,) = check_quarantine(settings, None)
    assert (found.check, found.status) == ("pubsub.quarantine-topic", "not_checkable")
    assert "roles/pubsub.viewer" in found.fix
