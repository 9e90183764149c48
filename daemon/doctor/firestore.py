"""Firestore: reads, the conditional commits that claims are made of, and the indexes."""

from __future__ import annotations

import secrets
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.composition import firestore_client
from daemon.doctor.findings import failure, not_checkable, ok, warning
from daemon.doctor.refusals import Mends, refused
from worker_chart_export.clock import SystemClock
from worker_chart_export.conditional_commit import LostRace, send
from worker_chart_export.documents import read_document
from worker_chart_export.errors import BackendRefused, BackendUnavailable, IndexMissing, WorkerError
from worker_chart_export.ledger.expired_leases import expired_leases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.doctor.findings import Finding
    from daemon.settings import FirestoreSettings

DATABASE = "firestore.database"
WRITE = "firestore.write"
LEASE_INDEX = "firestore.lease-index"
STEPS_EXEMPTION = "firestore.steps-exemption"
#: Documents of this collection live for a second; one that was left over may be deleted.
SCRATCH = "chart_export_doctor"
INDEX_FILE = "deploy/firestore.indexes.json"
DEPLOY_INDEXES = f"firebase deploy --only firestore:indexes   (with {INDEX_FILE})"


def check_database(settings: FirestoreSettings, emulator: str | None) -> list[Finding]:
    """Read a document that nobody has."""
    name = f"{settings.firestore_db} of project {settings.google_cloud_project}"
    with open_firestore(settings) as client:
        try:
            read_document(client, SCRATCH, "nobodys")
        except (BackendRefused, BackendUnavailable) as error:
            return [refused(DATABASE, error, firestore_mends(settings, emulator))]
    return [ok(DATABASE, f"{name} answers reads")]


def check_write(settings: FirestoreSettings, emulator: str | None) -> list[Finding]:
    """Create, change and delete a scratch document as claims do it."""
    with open_firestore(settings) as client:
        trial = try_conditional_writes(client)
    return [write_verdict(trial, firestore_mends(settings, emulator))]


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


def try_conditional_writes(client: Any) -> WriteTrial:
    """Write a document of a random name conditionally, and delete it whatever comes."""
    reference = client.collection(SCRATCH).document(secrets.token_hex(8))
    error, stale_accepted = None, False
    try:
        stale_accepted = _stale_write_is_accepted(client, reference)
    except WorkerError as found:
        error = found
    left_over = _delete(client, reference)
    return WriteTrial(path=reference.path, error=error, stale_accepted=stale_accepted, left_over=left_over)


def _stale_write_is_accepted(client: Any, reference: Any) -> bool:
    """Create, update with the time of the creation, then again with that time: the last must be refused."""
    batch = client.batch()
    batch.create(reference, {"writtenBy": "worker-chart-export doctor", "turn": 1})
    (created,) = send(batch)
    _update(client, reference, turn=2, seen=created.update_time)
    try:
        _update(client, reference, turn=3, seen=created.update_time)
    except LostRace:
        return False
    return True


def _update(client: Any, reference: Any, *, turn: int, seen: Any) -> None:
    batch = client.batch()
    batch.update(reference, {"turn": turn}, option=client.write_option(last_update_time=seen))
    send(batch)


def _delete(client: Any, reference: Any) -> WorkerError | None:
    batch = client.batch()
    batch.delete(reference)
    try:
        send(batch)
    except WorkerError as error:
        return error
    return None


def write_verdict(trial: WriteTrial, mends: Mends) -> Finding:
    """What the trial shows. Pure."""
    if trial.error is not None:
        return refused(WRITE, trial.error, mends)
    if trial.stale_accepted:
        summary = "a write with an outdated precondition was accepted: two workers could claim one step"
        return failure(WRITE, summary, "use Google's Firestore or its emulator in Native mode")
    if trial.left_over is not None:
        summary = f"{trial.path} was written but not deleted: {trial.left_over}"
        return warning(WRITE, summary, mends.of(trial.left_over) or f"delete {trial.path}")
    return ok(WRITE, "created, changed, refused when outdated, deleted a scratch document")


def check_indexes(settings: FirestoreSettings, emulator: str | None) -> list[Finding]:
    """Run the query of the rescue; whether steps are exempt from indexing can't be asked with its rights."""
    return [_lease_index(settings, emulator), steps_exemption(settings, emulator)]


def _lease_index(settings: FirestoreSettings, emulator: str | None) -> Finding:
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


def steps_exemption(settings: FirestoreSettings, emulator: str | None) -> Finding:
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
