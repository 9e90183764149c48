"""Cloud Storage: all that the worker does in the charts bucket, done with a scratch object."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from google.api_core.exceptions import PreconditionFailed

from daemon.cli.doctor.refusals import Mends
from daemon.cli.doctor.results import failure, not_checkable, ok, warning
from daemon.cli.doctor.scratch import failure_of
from daemon.composition import storage_client
from worker_chart_export.backends.storage import call_storage
from worker_chart_export.errors import ObjectRefused, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.cli.doctor.results import CheckResult
    from daemon.cli.doctor.scratch import Scratch
    from daemon.settings import BucketSettings
    from worker_chart_export.backends.storage import Timeout
    from worker_chart_export.concurrency.cancel_scope import CancelScope

CREATE = "storage.create"
READ = "storage.read"
LIST = "storage.list"
DELETE = "storage.delete"
CHECKS = (CREATE, READ, LIST, DELETE)
#: Below the charts, because an account's rights may end there.
FOLDER = "charts/.doctor/"
CONTENT = b"worker-chart-export doctor"
NOT_FOUND = 404

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
        delete: Why it could not be deleted, if it may be there.
    """

    uri: str
    create: WorkerError | None = None
    replaced: bool = False
    read: WorkerError | None = None
    differs: bool = False
    listed: WorkerError | None = None
    delete: WorkerError | None = None


def check_bucket(settings: BucketSettings, emulator: str | None, scratch: Scratch) -> list[CheckResult]:
    """Create, read, list and delete an object of a random name."""
    with closing(storage_client(settings.google_cloud_project, connections=1)) as client:
        trial = try_objects(client, settings.bucket_name, scratch)
    return bucket_verdicts(trial, settings.bucket_name, emulator)


def object_uri(bucket: str, scratch: Scratch) -> str:
    """Where the scratch object is."""
    return f"gs://{bucket}/{FOLDER}{scratch.name}"


def try_objects(client: Any, bucket: str, scratch: Scratch) -> BucketTrial:
    """Do all that the worker does there; the object is deleted whatever comes."""
    there = _Object(client, bucket, scratch)
    try:
        replaced = there.create() and there.create()
    except WorkerError as error:
        return BucketTrial(uri=there.uri, create=error, delete=_left_over(there, error))
    try:
        read, content = failure_of(there.read), there.content
        listed = failure_of(there.list)
    finally:
        delete = failure_of(there.delete)
    differs = read is None and content != CONTENT
    return BucketTrial(
        uri=there.uri, replaced=replaced, read=read, differs=differs, listed=listed, delete=delete
    )


def _left_over(there: _Object, create: WorkerError) -> WorkerError | None:
    """Delete it although its creation failed: an answer can get lost, a refusal comes before the effect."""
    delete = failure_of(there.delete)
    return None if isinstance(create, ObjectRefused) else delete


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
        """Delete it, if it is there; time is kept for this."""
        blob = self._bucket.blob(self._name)
        try:
            self._ask(lambda timeout: blob.delete(timeout=timeout, retry=None), self._scratch.clean_up())
        except ObjectRefused as error:
            if error.details.get("httpStatus") != NOT_FOUND:
                raise

    def _ask(self, call: Callable[[Timeout], T], scope: CancelScope | None = None) -> T:
        return call_storage(call, name=self.uri, refusal=ObjectRefused, scope=scope or self._scope)


def bucket_verdicts(trial: BucketTrial, bucket: str, emulator: str | None) -> list[CheckResult]:
    """What the trial shows. Pure."""
    if trial.create is not None:
        return _nothing_created(trial, trial.create, _mend(trial.create, bucket, emulator))
    listed = trial.listed
    return [
        _created(trial, bucket),
        _read(trial, bucket, emulator),
        failure(LIST, str(listed), _mend(listed, bucket, emulator)) if listed else ok(LIST, "works"),
        _deleted(trial, bucket, emulator),
    ]


def _nothing_created(trial: BucketTrial, why: WorkerError, mend: str) -> list[CheckResult]:
    failed = failure(CREATE, str(why), mend)
    if trial.delete is not None:
        failed = replace(failed, mend=f"{mend}; then: {_remove(trial)}", left_over=trial.uri)
    return [failed, *(not_checkable(check, "no object could be created") for check in CHECKS[1:])]


def _remove(trial: BucketTrial) -> str:
    return f"gcloud storage rm {trial.uri}"


def _created(trial: BucketTrial, bucket: str) -> CheckResult:
    if trial.replaced:
        summary = "an object that existed was replaced in spite of if-generation-match=0"
        return failure(CREATE, summary, "use Cloud Storage itself, or an emulator that knows preconditions")
    return ok(CREATE, f"gs://{bucket}: created a scratch object, the second time refused")


def _read(trial: BucketTrial, bucket: str, emulator: str | None) -> CheckResult:
    if trial.read is not None:
        return failure(READ, str(trial.read), _mend(trial.read, bucket, emulator))
    if trial.differs:
        return failure(READ, "what was read is not what was written", "look for a proxy that changes answers")
    return ok(READ, "equal to what was written")


def _deleted(trial: BucketTrial, bucket: str, emulator: str | None) -> CheckResult:
    if trial.delete is None:
        return ok(DELETE, "works")
    summary = f"so no manifest could be replaced: {trial.delete}"
    mend = f"{_mend(trial.delete, bucket, emulator)}; then: {_remove(trial)}"
    return replace(warning(DELETE, summary, mend), left_over=trial.uri)


def _mend(error: WorkerError, bucket: str, emulator: str | None) -> str:
    if not isinstance(error, ObjectRefused):
        return Mends(emulator=emulator).of(error)
    status = error.details.get("httpStatus")
    if status == NOT_FOUND:
        return f"correct CHARTS_BUCKET, or: gcloud storage buckets create gs://{bucket} --location=REGION"
    role = "--member=ACCOUNT --role=roles/storage.objectUser"
    return f"gcloud storage buckets add-iam-policy-binding gs://{bucket} {role}"
