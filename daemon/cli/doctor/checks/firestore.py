"""Check Firestore: reads, the conditional commits that claims need, and the indexes."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from daemon.cli.doctor.results import Fixes, backend_failure, failure, not_checkable, ok, warning
from daemon.cli.doctor.scratch import failure_of
from daemon.clients import firestore_client
from worker_chart_export.backends.firestore import LostRace, read_document, send
from worker_chart_export.errors import BackendRefused, BackendUnavailable, IndexMissing, WorkerError
from worker_chart_export.ledger.expired_leases import expired_leases
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.cli.doctor.results import CheckResult
    from daemon.cli.doctor.scratch import Scratch
    from daemon.settings import FirestoreSettings
    from worker_chart_export.concurrency.cancel_scope import CancelScope

DATABASE = "firestore.database"
WRITE = "firestore.write"
LEASE_INDEX = "firestore.lease-index"
STEPS_EXEMPTION = "firestore.steps-exemption"
#: The documents of this collection exist for about a second. One that was left over may be deleted.
SCRATCH = "chart_export_doctor"
INDEX_FILE = "deploy/firestore.indexes.json"
#: A commit gets this time even if the time limit is reached.
MIN_COMMIT_SECONDS = 0.5
DEPLOY_INDEXES = f"firebase deploy --only firestore:indexes   (with {INDEX_FILE})"


def check_database(settings: FirestoreSettings, emulator: str | None) -> list[CheckResult]:
    """Read a document that does not exist."""
    with open_firestore(settings) as client:
        try:
            read_document(client, SCRATCH, "missing")
        except (BackendRefused, BackendUnavailable) as error:
            return [backend_failure(DATABASE, error, firestore_fixes(settings, emulator))]
    name = f"{settings.firestore_db} of project {settings.google_cloud_project}"
    return [ok(DATABASE, f"{name} answers reads")]


def check_write(settings: FirestoreSettings, emulator: str | None, scratch: Scratch) -> list[CheckResult]:
    """Create, change and delete a scratch document with the same kind of writes as a claim."""
    with open_firestore(settings) as client:
        trial = try_conditional_writes(client, scratch)
    return [write_verdict(trial, firestore_fixes(settings, emulator))]


def document_path(scratch: Scratch) -> str:
    """Return the path of the scratch document."""
    return f"{SCRATCH}/{scratch.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTrial:
    """The result of the writes to the scratch document.

    Attributes:
        path: The path of the document.
        error: The error that ended the trial early.
        stale_accepted: A write with an outdated precondition was accepted.
        left_over: Why the document could not be deleted.
    """

    path: str
    error: WorkerError | None = None
    stale_accepted: bool = False
    left_over: WorkerError | None = None


def try_conditional_writes(client: Any, scratch: Scratch) -> WriteTrial:
    """Write a document with preconditions, and delete it in any case."""
    document = _Document(client, scratch)
    error, stale_accepted = None, False
    try:
        stale_accepted = document.accepts_stale_writes()
    except WorkerError as found:
        error = found
    finally:
        left_over = failure_of(document.delete)
    path = document_path(scratch)
    return WriteTrial(path=path, error=error, stale_accepted=stale_accepted, left_over=left_over)


class _Document:
    """The scratch document."""

    def __init__(self, client: Any, scratch: Scratch) -> None:
        self._client = client
        self._scratch = scratch
        self._scope = scratch.trial()
        self._reference = client.document(document_path(scratch))

    def accepts_stale_writes(self) -> bool:
        """Create the document, update it, and update it again with the outdated time of its creation.

        Returns:
            Whether the last write was accepted. Firestore must refuse it.
        """
        batch = self._client.batch()
        batch.create(self._reference, {"writtenBy": "worker-chart-export doctor", "turn": 1})
        (created,) = _send(batch, self._scope)
        self._update(turn=2, seen=created.update_time)
        try:
            self._update(turn=3, seen=created.update_time)
        except LostRace:
            return False
        return True

    def _update(self, *, turn: int, seen: Any) -> None:
        batch = self._client.batch()
        batch.update(self._reference, {"turn": turn}, option=self._client.write_option(last_update_time=seen))
        _send(batch, self._scope)

    def delete(self) -> None:
        """Delete the document, within a time limit of its own."""
        batch = self._client.batch()
        batch.delete(self._reference)
        _send(batch, self._scratch.clean_up())


def _send(batch: Any, scope: CancelScope) -> list[Any]:
    scope.check_stopped()
    return send(_BatchWithin(batch, scope))


class _BatchWithin:
    """A batch whose commit does not wait longer than the scope allows."""

    def __init__(self, batch: Any, scope: CancelScope) -> None:
        self._batch = batch
        self._scope = scope

    def commit(self, *, retry: Any, timeout: float) -> Any:
        """Commit the batch."""
        seconds = max(MIN_COMMIT_SECONDS, self._scope.remaining_seconds())
        return self._batch.commit(retry=retry, timeout=min(timeout, seconds))


def write_verdict(trial: WriteTrial, fixes: Fixes) -> CheckResult:
    """Judge the result of the writes. Pure."""
    if trial.error is not None:
        result = backend_failure(WRITE, trial.error, fixes)
    elif trial.stale_accepted:
        summary = "a write with an outdated precondition was accepted: two workers could claim one step"
        result = failure(WRITE, summary, "use Google's Firestore or its emulator in Native mode")
    elif trial.left_over is not None:
        summary = f"the scratch document could not be deleted: {trial.left_over}"
        result = warning(WRITE, summary, fixes.for_error(trial.left_over) or f"delete {trial.path}")
    else:
        result = ok(WRITE, "created, changed and deleted a scratch document; an outdated write was refused")
    return replace(result, left_over=trial.path if trial.left_over else "")


def check_indexes(settings: FirestoreSettings, emulator: str | None) -> list[CheckResult]:
    """Run the query of the rescue. The exemption of `steps` can't be read with a worker's permissions."""
    return [_lease_index(settings, emulator), steps_exemption(settings, emulator)]


def _lease_index(settings: FirestoreSettings, emulator: str | None) -> CheckResult:
    with open_firestore(settings) as client:
        try:
            first = next(expired_leases(client, before=SystemClock().now()), [])
        except IndexMissing as error:
            summary = f"the index of expiresAt is missing, so steps of dead workers stay RUNNING: {error}"
            return failure(LEASE_INDEX, summary[:300], DEPLOY_INDEXES)
        except (BackendRefused, BackendUnavailable) as error:
            return backend_failure(LEASE_INDEX, error, firestore_fixes(settings, emulator))
    if emulator:
        return not_checkable(LEASE_INDEX, "the rescue's query works, but an emulator needs no index for it")
    return ok(LEASE_INDEX, f"the rescue's query works; expired leases on its first page: {len(first)}")


def steps_exemption(settings: FirestoreSettings, emulator: str | None) -> CheckResult:
    """Return how to check the exemption by hand."""
    if emulator:
        return not_checkable(STEPS_EXEMPTION, "an emulator has no index settings")
    look = "gcloud firestore indexes fields describe steps --collection-group=flow_runs"
    where = f"--database='{settings.firestore_db}' --project={settings.google_cloud_project}"
    why = "a worker's account may not read index settings. If `steps` is indexed, large runs can't be written"
    return not_checkable(STEPS_EXEMPTION, why, f"{look} {where}; if it is indexed: {DEPLOY_INDEXES}")


def firestore_fixes(settings: FirestoreSettings, emulator: str | None) -> Fixes:
    """Return the fixes for Firestore's errors."""
    project, database = settings.google_cloud_project, settings.firestore_db
    return Fixes(
        missing=f"correct FIRESTORE_DB, or: gcloud firestore databases create --database='{database}' "
        f"--location=REGION --project={project}",
        forbidden=f"gcloud projects add-iam-policy-binding {project} --member=ACCOUNT "
        "--role=roles/datastore.user",
        emulator=emulator,
    )


@contextmanager
def open_firestore(settings: FirestoreSettings) -> Iterator[Any]:
    """Open a Firestore client, and close it at the end of the context.

    Raises:
        BackendRefused: There are no credentials.
    """
    with closing(firestore_client(settings.google_cloud_project, settings.firestore_db)) as client:
        yield client
