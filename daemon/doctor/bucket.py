"""Cloud Storage: all that the worker does in the charts bucket, done with a scratch object."""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from google.api_core.exceptions import PreconditionFailed

from daemon.composition import storage_client
from daemon.doctor.findings import failure, not_checkable, ok, warning
from daemon.doctor.refusals import Mends, refused
from worker_chart_export.budget import StepBudget
from worker_chart_export.clock import SystemClock
from worker_chart_export.errors import ObjectRefused, WorkerError
from worker_chart_export.storage_calls import ask_storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.doctor.findings import Finding
    from daemon.settings import BucketSettings
    from worker_chart_export.storage_calls import Timeout

CREATE = "storage.create"
READ = "storage.read"
LIST = "storage.list"
DELETE = "storage.delete"
CHECKS = (CREATE, READ, LIST, DELETE)
#: Below the charts, because an account's rights may end there.
FOLDER = "charts/.doctor/"
CONTENT = b"worker-chart-export doctor"
TRIAL_SECONDS = 10.0
CLEAN_UP_SECONDS = 6.0
NOT_FOUND, FORBIDDEN, UNAUTHORIZED = 404, 403, 401

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketTrial:
    """What became of a scratch object; None = it went well.

    Attributes:
        uri: Where it is, if it was left over.
        create: Why it could not be created; then nothing else was tried.
        replaced: A second creation under the same name was accepted.
        read: Why it could not be read.
        differs: What was read is not what was written.
        listed: Why the folder could not be listed.
        delete: Why it could not be deleted.
    """

    uri: str
    create: WorkerError | None = None
    replaced: bool = False
    read: WorkerError | None = None
    differs: bool = False
    listed: WorkerError | None = None
    delete: WorkerError | None = None


def check_bucket(settings: BucketSettings, emulator: str | None) -> list[Finding]:
    """Create, read, list and delete an object of a random name."""
    with closing(storage_client(settings.google_cloud_project, connections=1)) as client:
        trial = try_objects(client, settings.bucket_name)
    return bucket_verdicts(trial, settings.bucket_name, emulator)


def try_objects(client: Any, bucket: str) -> BucketTrial:
    """Do all that the worker does there; the object is deleted whatever comes."""
    scratch = _Scratch(client, bucket)
    try:
        replaced = scratch.create() and scratch.create()
    except WorkerError as error:
        scratch.failure_of(scratch.delete)  # it may be there: an answer can get lost
        return BucketTrial(uri=scratch.uri, create=error)
    try:
        read, content = scratch.failure_of(scratch.read), scratch.content
        listed = scratch.failure_of(scratch.list)
    finally:
        delete = scratch.failure_of(scratch.delete)
    differs = read is None and content != CONTENT
    return BucketTrial(
        uri=scratch.uri, replaced=replaced, read=read, differs=differs, listed=listed, delete=delete
    )


class _Scratch:
    """One object of a random name."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = client.bucket(bucket)
        self._name = f"{FOLDER}{secrets.token_hex(8)}"
        self._budget = StepBudget(seconds=TRIAL_SECONDS, clock=SystemClock())
        self.uri = f"gs://{bucket}/{self._name}"
        self.content = b""

    def failure_of(self, operation: Callable[[], object]) -> WorkerError | None:
        """Why the operation failed, or None."""
        try:
            operation()
        except WorkerError as error:
            return error
        return None

    def create(self) -> bool:
        """Create it; False when it is there already."""
        try:
            self._ask(
                lambda timeout: self._bucket.blob(self._name).upload_from_string(
                    CONTENT, if_generation_match=0, checksum="crc32c", timeout=timeout, retry=None
                )
            )
        except PreconditionFailed:
            return False
        return True

    def read(self) -> None:
        """Read it into `content`."""
        blob = self._bucket.blob(self._name)
        self.content = self._ask(lambda timeout: blob.download_as_bytes(timeout=timeout, retry=None))

    def list(self) -> None:
        """List its folder, as who takes a step over does."""
        self._ask(
            lambda timeout: list(
                self._client.list_blobs(self._bucket, prefix=self._name, timeout=timeout, retry=None)
            )
        )

    def delete(self) -> None:
        """Delete it; time is kept for this."""
        budget = self._budget.at_least(CLEAN_UP_SECONDS)
        blob = self._bucket.blob(self._name)
        self._ask(lambda timeout: blob.delete(timeout=timeout, retry=None), budget)

    def _ask(self, call: Callable[[Timeout], T], budget: StepBudget | None = None) -> T:
        return ask_storage(call, name=self.uri, refusal=ObjectRefused, budget=budget or self._budget)


def bucket_verdicts(trial: BucketTrial, bucket: str, emulator: str | None) -> list[Finding]:
    """What the trial shows. Pure."""
    if trial.create is not None:
        rest = [not_checkable(check, "no object could be created") for check in CHECKS[1:]]
        return [failure(CREATE, str(trial.create), _mend(trial.create, bucket, emulator)), *rest]
    listed = trial.listed
    return [
        _created(trial, bucket),
        _read(trial, bucket, emulator),
        failure(LIST, str(listed), _mend(listed, bucket, emulator)) if listed else ok(LIST, "works"),
        _deleted(trial, bucket, emulator),
    ]


def _created(trial: BucketTrial, bucket: str) -> Finding:
    if trial.replaced:
        summary = "an object that existed was replaced in spite of if-generation-match=0"
        return failure(CREATE, summary, "use Cloud Storage itself, or an emulator that knows preconditions")
    return ok(CREATE, f"gs://{bucket}: created a scratch object, the second time refused")


def _read(trial: BucketTrial, bucket: str, emulator: str | None) -> Finding:
    if trial.read is not None:
        return failure(READ, str(trial.read), _mend(trial.read, bucket, emulator))
    if trial.differs:
        return failure(READ, "what was read is not what was written", "look for a proxy that changes answers")
    return ok(READ, "equal to what was written")


def _deleted(trial: BucketTrial, bucket: str, emulator: str | None) -> Finding:
    if trial.delete is None:
        return ok(DELETE, "works")
    summary = f"{trial.uri} is left over, and no manifest could be replaced: {trial.delete}"
    mend = _mend(trial.delete, bucket, emulator)
    return warning(DELETE, summary, f"{mend}; then: gcloud storage rm {trial.uri}")


def _mend(error: WorkerError, bucket: str, emulator: str | None) -> str:
    if not isinstance(error, ObjectRefused):
        return refused(CREATE, error, Mends(emulator=emulator)).mend
    status = error.details.get("httpStatus")
    if status == NOT_FOUND:
        return f"correct CHARTS_BUCKET, or: gcloud storage buckets create gs://{bucket} --location=REGION"
    role = "--member=ACCOUNT --role=roles/storage.objectUser"
    return f"gcloud storage buckets add-iam-policy-binding gs://{bucket} {role}"
