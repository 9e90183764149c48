"""Check Cloud Storage: use a scratch object in the charts bucket like the worker uses charts."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from google.api_core.exceptions import PreconditionFailed

from daemon.cli.doctor.results import Fixes, failure, not_checkable, ok, warning
from daemon.cli.doctor.scratch import failure_of
from daemon.clients import storage_client
from worker_chart_export.backends.storage import call_storage
from worker_chart_export.errors import ObjectRefused, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.cli.doctor.results import CheckResult
    from daemon.cli.doctor.scratch import Scratch
    from daemon.settings import BucketSettings
    from worker_chart_export.backends.storage_session import Timeout
    from worker_chart_export.concurrency.cancel_scope import CancelScope

CREATE = "storage.create"
READ = "storage.read"
LIST = "storage.list"
DELETE = "storage.delete"
CHECKS = (CREATE, READ, LIST, DELETE)
#: Below the folder of the charts, because an account's permissions may be limited to it.
FOLDER = "charts/.doctor/"
CONTENT = b"worker-chart-export doctor"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketTrial:
    """The result of each operation on the scratch object; None means success.

    Attributes:
        uri: The URI of the object.
        create: Why it could not be created. Then nothing else was tried.
        replaced: A second creation under the same name was accepted.
        read: Why it could not be read.
        differs: The content that was read is not the content that was written.
        listed: Why the folder could not be listed.
        delete: Why it could not be deleted, if it may exist.
    """

    uri: str
    create: WorkerError | None = None
    replaced: bool = False
    read: WorkerError | None = None
    differs: bool = False
    listed: WorkerError | None = None
    delete: WorkerError | None = None


def check_bucket(settings: BucketSettings, emulator: str | None, scratch: Scratch) -> list[CheckResult]:
    """Create, read, list and delete an object with a random name."""
    with closing(storage_client(settings.google_cloud_project, connections=1)) as client:
        trial = try_objects(client, settings.bucket_name, scratch)
    return bucket_verdicts(trial, settings.bucket_name, emulator)


def object_uri(bucket: str, scratch: Scratch) -> str:
    """Return the URI of the scratch object."""
    return f"gs://{bucket}/{FOLDER}{scratch.name}"


def try_objects(client: Any, bucket: str, scratch: Scratch) -> BucketTrial:
    """Do all operations of the worker with the scratch object, and delete it in any case."""
    scratch_object = _Object(client, bucket, scratch)
    uri = scratch_object.uri
    try:
        replaced = scratch_object.create() and scratch_object.create()
    except WorkerError as error:
        # An answer can get lost after the object was created. A refusal comes before the effect.
        delete = failure_of(scratch_object.delete)
        return BucketTrial(uri=uri, create=error, delete=None if isinstance(error, ObjectRefused) else delete)
    try:
        read, content = failure_of(scratch_object.read), scratch_object.content
        listed = failure_of(scratch_object.list)
    finally:
        delete = failure_of(scratch_object.delete)
    differs = read is None and content != CONTENT
    return BucketTrial(uri=uri, replaced=replaced, read=read, differs=differs, listed=listed, delete=delete)


class _Object:
    """The scratch object."""

    def __init__(self, client: Any, bucket: str, scratch: Scratch) -> None:
        self._client = client
        self._bucket = client.bucket(bucket)
        self._scratch = scratch
        self._name = f"{FOLDER}{scratch.name}"
        self._scope = scratch.trial()
        self.uri = object_uri(bucket, scratch)
        self.content = b""

    def create(self) -> bool:
        """Create the object if it does not exist; return whether it was created."""
        blob = self._bucket.blob(self._name)
        try:
            self._call(
                lambda timeout: blob.upload_from_string(
                    CONTENT, if_generation_match=0, checksum="crc32c", timeout=timeout, retry=None
                )
            )
        except PreconditionFailed:
            return False
        return True

    def read(self) -> None:
        """Read the object into `content`."""
        blob = self._bucket.blob(self._name)
        self.content = self._call(lambda timeout: blob.download_as_bytes(timeout=timeout, retry=None))

    def list(self) -> None:
        """List the object by its prefix, as a worker does when it takes a step over."""
        self._call(
            lambda timeout: list(
                self._client.list_blobs(self._bucket, prefix=self._name, timeout=timeout, retry=None)
            )
        )

    def delete(self) -> None:
        """Delete the object if it exists, within a time limit of its own."""
        blob = self._bucket.blob(self._name)
        try:
            self._call(lambda timeout: blob.delete(timeout=timeout, retry=None), self._scratch.clean_up())
        except ObjectRefused as error:
            if error.details.get("httpStatus") != HTTPStatus.NOT_FOUND:
                raise

    def _call(self, call: Callable[[Timeout], T], scope: CancelScope | None = None) -> T:
        return call_storage(call, name=self.uri, refusal=ObjectRefused, scope=scope or self._scope)


def bucket_verdicts(trial: BucketTrial, bucket: str, emulator: str | None) -> list[CheckResult]:
    """Judge the result of the operations. Pure."""
    remove = f"gcloud storage rm {trial.uri}"
    if trial.create is not None:
        failed = failure(CREATE, str(trial.create), _fix(trial.create, bucket, emulator))
        if trial.delete is not None:
            failed = replace(failed, fix=f"{failed.fix}; then: {remove}", left_over=trial.uri)
        return [failed, *(not_checkable(check, "no object could be created") for check in CHECKS[1:])]
    results = [ok(CREATE, f"gs://{bucket}: created a scratch object; the second creation was refused")]
    if trial.replaced:
        summary = "an object that existed was replaced in spite of if-generation-match=0"
        fix = "use Cloud Storage itself, or an emulator that supports preconditions"
        results = [failure(CREATE, summary, fix)]
    if trial.differs:
        fix = "look for a proxy that changes answers"
        results.append(failure(READ, "the content that was read is not what was written", fix))
    else:
        results.append(_operation(READ, "equal to what was written", trial.read, bucket, emulator))
    results.append(_operation(LIST, "works", trial.listed, bucket, emulator))
    if trial.delete is None:
        return [*results, ok(DELETE, "works")]
    fix = f"{_fix(trial.delete, bucket, emulator)}; then: {remove}"
    failed = warning(DELETE, f"a manifest could not be replaced either: {trial.delete}", fix)
    return [*results, replace(failed, left_over=trial.uri)]


def _operation(
    check: str, success: str, error: WorkerError | None, bucket: str, emulator: str | None
) -> CheckResult:
    if error is None:
        return ok(check, success)
    return failure(check, str(error), _fix(error, bucket, emulator))


def _fix(error: WorkerError, bucket: str, emulator: str | None) -> str:
    if not isinstance(error, ObjectRefused):
        return Fixes(emulator=emulator).for_error(error)
    if error.details.get("httpStatus") == HTTPStatus.NOT_FOUND:
        return f"correct CHARTS_BUCKET, or: gcloud storage buckets create gs://{bucket} --location=REGION"
    role = "--member=ACCOUNT --role=roles/storage.objectUser"
    return f"gcloud storage buckets add-iam-policy-binding gs://{bucket} {role}"
