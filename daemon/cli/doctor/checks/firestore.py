"""Firestore: reads, the conditional commits that claims are made of, and the indexes."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from daemon.cli.doctor.refusals import Mends, refused
from daemon.cli.doctor.results import failure, not_checkable, ok, warning
from daemon.cli.doctor.scratch import failure_of
from daemon.composition import firestore_client
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
#: Documents of this collection live for a second; one that was left over may be deleted.
SCRATCH = "chart_export_doctor"
INDEX_FILE = "deploy/firestore.indexes.json"
#: A commit gets so much even when the time is over.
MIN_COMMIT_SECONDS = 0.5
DEPLOY_INDEXES = f"firebase deploy --only firestore:indexes   (with {INDEX_FILE})"


def check_database(settings: FirestoreSettings, emulator: str | None) -> list[CheckResult]:
    """Read a document that nobody has."""
    name = f"{settings.firestore_db} of project {settings.google_cloud_project}"
    with open_firestore(settings) as client:
        try:
            read_document(client, SCRATCH, "nobodys")
        except (BackendRefused, BackendUnavailable) as error:
            return [refused(DATABASE, error, firestore_mends(settings, emulator))]
    return [ok(DATABASE, f"{name} answers reads")]


def check_write(settings: FirestoreSettings, emulator: str | None, scratch: Scratch) -> list[CheckResult]:
    """Create, change and delete a scratch document as claims do it."""
    with open_firestore(settings) as client:
        trial = try_conditional_writes(client, scratch)
    return [write_verdict(trial, firestore_mends(settings, emulator))]


def document_path(scratch: Scratch) -> str:
    """Where the scratch document is."""
    return f"{SCRATCH}/{scratch.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTrial:
    """What became of a scratch document.

    Attributes:
        path: Where it is, if it was left over.
        error: What ended the trial early.
        stale_accepted: A write was accepted whose precondition no longer held.
        left_over: Why it could not be deleted.
    """

    path: str
    error: WorkerError | None = None
    stale_accepted: bool = False
    left_over: WorkerError | None = None


def try_conditional_writes(client: Any, scratch: Scratch) -> WriteTrial:
    """Write a document conditionally, and delete it whatever comes."""
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
        """Create, update with the time of the creation, then again with that time: this must be refused."""
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
        """Delete it; time is kept for this."""
        batch = self._client.batch()
        batch.delete(self._reference)
        _send(batch, self._scratch.clean_up())


def _send(batch: Any, scope: CancelScope) -> list[Any]:
    scope.check_stopped()
    return send(_InTime(batch, scope))


class _InTime:
    """A batch whose commit waits for its answer no longer than there is time."""

    def __init__(self, batch: Any, scope: CancelScope) -> None:
        self._batch = batch
        self._scope = scope

    def commit(self, *, retry: Any, timeout: float) -> Any:
        """Commit it."""
        seconds = max(MIN_COMMIT_SECONDS, self._scope.remaining_seconds())
        return self._batch.commit(retry=retry, timeout=min(timeout, seconds))


def write_verdict(trial: WriteTrial, mends: Mends) -> CheckResult:
    """What the trial shows. Pure."""
    return replace(_judged(trial, mends), left_over=trial.path if trial.left_over else "")


def _judged(trial: WriteTrial, mends: Mends) -> CheckResult:
    if trial.error is not None:
        return refused(WRITE, trial.error, mends)
    if trial.stale_accepted:
        summary = "a write with an outdated precondition was accepted: two workers could claim one step"
        return failure(WRITE, summary, "use Google's Firestore or its emulator in Native mode")
    if trial.left_over is not None:
        summary = f"the scratch document could not be deleted: {trial.left_over}"
        return warning(WRITE, summary, mends.of(trial.left_over) or f"delete {trial.path}")
    return ok(WRITE, "created, changed, refused when outdated, deleted a scratch document")


def check_indexes(settings: FirestoreSettings, emulator: str | None) -> list[CheckResult]:
    """Run the query of the rescue; whether steps are exempt from indexing can't be asked with its rights."""
    return [_lease_index(settings, emulator), steps_exemption(settings, emulator)]


def _lease_index(settings: FirestoreSettings, emulator: str | None) -> CheckResult:
    with open_firestore(settings) as client:
        try:
            first = next(expired_leases(client, before=SystemClock().now()), [])
        except IndexMissing as error:
            summary = f"the index of expiresAt over all runs is missing, steps of dead workers stay: {error}"
            return failure(LEASE_INDEX, summary[:300], DEPLOY_INDEXES)
        except (BackendRefused, BackendUnavailable) as error:
            return refused(LEASE_INDEX, error, firestore_mends(settings, emulator))
    if emulator:
        return not_checkable(LEASE_INDEX, "the rescue's query works, but an emulator needs no index for it")
    return ok(LEASE_INDEX, f"the rescue's query works; leases that are over on its first page: {len(first)}")


def steps_exemption(settings: FirestoreSettings, emulator: str | None) -> CheckResult:
    """How to look for it by hand."""
    if emulator:
        return not_checkable(STEPS_EXEMPTION, "an emulator has no index settings")
    look = "gcloud firestore indexes fields describe steps --collection-group=flow_runs"
    where = f"--database='{settings.firestore_db}' --project={settings.google_cloud_project}"
    why = "a worker's account may not read index settings; without it, large runs can't be written"
    return not_checkable(STEPS_EXEMPTION, why, f"{look} {where}; if it is indexed: {DEPLOY_INDEXES}")


def firestore_mends(settings: FirestoreSettings, emulator: str | None) -> Mends:
    """What mends Firestore's errors."""
    project, database = settings.google_cloud_project, settings.firestore_db
    return Mends(
        missing=f"correct FIRESTORE_DB, or: gcloud firestore databases create --database='{database}' "
        f"--location=REGION --project={project}",
        forbidden=f"gcloud projects add-iam-policy-binding {project} --member=ACCOUNT "
        "--role=roles/datastore.user",
        emulator=emulator,
    )


@contextmanager
def open_firestore(settings: FirestoreSettings) -> Iterator[Any]:
    """A client for as long as the context lasts.

    Raises:
        BackendRefused: There are no credentials.
    """
    with closing(firestore_client(settings.google_cloud_project, settings.firestore_db)) as client:
        yield client
