"""Read Firestore documents, read many of them lazily, and commit write batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as google_errors

from worker_chart_export.backends.access_tokens import drop_refused_tokens
from worker_chart_export.backends.errors import (
    COMMIT_TIMEOUT_SECONDS,
    READ_RETRY,
    READ_TIMEOUT_SECONDS,
    TRANSIENT,
    backend_errors,
    describe_error,
)
from worker_chart_export.backends.firestore_calls import batch_get_documents, instant
from worker_chart_export.backends.firestore_values import LazyFields
from worker_chart_export.errors import (
    FIRESTORE,
    BackendRefused,
    BackendUnavailable,
    WorkerError,
    without_frames,
)
from worker_chart_export.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from google.api_core.retry import Retry


def replace_document(client: Any, collection: str, document_id: str, document: Mapping[str, Any]) -> None:
    """Write a whole document. Create it when it does not exist.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(collection).document(document_id)
    with backend_errors("firestore"):
        reference.set(dict(document), retry=READ_RETRY, timeout=COMMIT_TIMEOUT_SECONDS)


def create_document(reference: Any, document: Mapping[str, Any]) -> bool:
    """Create a document. Return False when it already exists.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    with backend_errors("firestore"):
        try:
            reference.create(dict(document), retry=READ_RETRY, timeout=COMMIT_TIMEOUT_SECONDS)
        except google_errors.AlreadyExists:
            return False
    return True


def delete_document(
    client: Any,
    collection: str,
    document_id: str,
    *,
    update_time: datetime | None = None,
    timeout_seconds: float = COMMIT_TIMEOUT_SECONDS,
) -> None:
    """Delete a document. Without `update_time` it may be missing.

    Args:
        client: A Firestore client.
        collection: The collection.
        document_id: The id of the document.
        update_time: Delete it only if it was last written then.
        timeout_seconds: The limit of the call.

    Raises:
        LostRace: The document was written or deleted since `update_time`. Nothing was deleted.
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(collection).document(document_id)
    option = None if update_time is None else client.write_option(last_update_time=update_time)
    with backend_errors("firestore"):
        try:
            reference.delete(option=option, retry=None, timeout=timeout_seconds)
        except (google_errors.FailedPrecondition, google_errors.NotFound) as error:
            raise LostRace("firestore", describe_error(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class LazySnapshot:
    """A document as it was read.

    Attributes:
        fields: Its fields, or None when there is no document.
        update_time: When it was last written, or None when there is no document.
        read_time: The server's time of the read.
    """

    fields: LazyFields | None
    update_time: datetime | None
    read_time: datetime

    def to_dict(self) -> dict[str, Any] | None:
        """Return the fields as plain values, or None when there is no document."""
        return None if self.fields is None else self.fields.to_dict()


def read_document(client: Any, collection: str, document_id: str) -> LazySnapshot:
    """Read a document. Retry for a short time while Firestore is unavailable.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    (found,) = read_documents(client, [client.collection(collection).document(document_id)])
    return found


def read_collection(client: Any, collection: str) -> dict[str, dict[str, Any]]:
    """Read all documents of a small collection. Return their fields by document id.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    folder = client.collection(collection)
    names = document_ids(folder)
    documents = zip(names, read_documents(client, [folder.document(name) for name in names]), strict=True)
    return {name: fields for name, found in documents if (fields := found.to_dict()) is not None}


def document_ids(collection: Any) -> list[str]:
    """Return the ids of the documents of a collection, in order. Their fields are not sent.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    with backend_errors("firestore"):
        found = collection.select(()).stream(retry=READ_RETRY, timeout=READ_TIMEOUT_SECONDS)
        return [snapshot.id for snapshot in found]


def read_documents(
    client: Any,
    references: Sequence[Any],
    *,
    field_paths: Sequence[str] | None = None,
    retry: Retry | None = READ_RETRY,
    timeout_seconds: float = READ_TIMEOUT_SECONDS,
) -> list[LazySnapshot]:
    """Read documents at one moment. Return them in the order of `references`.

    A large run is read often, and few of its steps are used each time. `DocumentReference.get()` decodes all
    steps and copies the result twice: 140 ms for a run of 1,000 steps. The read itself takes 7 ms. So this
    function uses private parts of Google's client. Only `firestore_pages` does so too.

    Args:
        client: A Firestore client.
        references: The documents.
        field_paths: The fields to read, quoted as Firestore wants it. None: all.
        retry: The client's retries.
        timeout_seconds: The limit of each call.

    Raises:
        BackendUnavailable: Firestore is unavailable, or its answer lacks a document.
        BackendRefused: Firestore refuses.
    """
    if not references:
        return []
    names = [reference._document_path for reference in references]  # noqa: SLF001 - see above
    request = {"database": client._database_string, "documents": names}  # noqa: SLF001
    if field_paths is not None:
        request["mask"] = {"field_paths": list(field_paths)}
    found: dict[str, LazySnapshot] = {}
    with backend_errors("firestore"):
        for answer in batch_get_documents(client, request, retry=retry, timeout=timeout_seconds):
            name, fields, update_time = answer.missing, None, None
            if not name:
                name, update_time = answer.found.name, instant(answer.found.update_time)
                fields = LazyFields(answer.found.fields, client)
            read_time = instant(answer.read_time)
            found[name] = LazySnapshot(fields=fields, update_time=update_time, read_time=read_time)
    for name in names:
        if name not in found:
            raise BackendUnavailable(FIRESTORE, f"its answer lacks the document {name}")
    return [found[name] for name in names]


class LostRace(BackendUnavailable):
    """One of the documents was written by another client since it was read. Nothing was written."""


class OutcomeUnknown(BackendUnavailable):
    """The commit may or may not have taken effect."""


class Unacceptable(WorkerError):
    """Firestore can never store this commit: a value in it is not allowed in a document."""


#: The results of failed commits in the metrics.
RESULTS: dict[type[WorkerError], str] = {
    LostRace: "lost_race",
    OutcomeUnknown: "unknown",
    Unacceptable: "unacceptable",
    BackendRefused: "refused",
}
_LANDED = metrics.COMMITS.labels("landed")


def send(batch: Any) -> list[Any]:
    """Commit a write batch: all of it or nothing. Return the result of each write.

    The retry of Google's client is off: it would report a commit that took effect as a lost race.

    Raises:
        LostRace: A precondition failed.
        OutcomeUnknown: There was no clear answer.
        Unacceptable: Firestore can't store it.
        BackendRefused: Firestore refuses.
    """
    try:
        results = list(batch.commit(retry=None, timeout=COMMIT_TIMEOUT_SECONDS))
    except Exception as error:
        failure = _commit_failure(error)
        if failure is None:
            raise
        metrics.COMMITS.labels(RESULTS[type(failure)]).inc()
        try:
            raise failure from without_frames(error)
        finally:
            del failure  # its traceback holds this frame: a cycle
    metrics.count_call("firestore", "answered")
    _LANDED.inc()
    return results


def _commit_failure(error: Exception) -> WorkerError | None:
    """Translate the error of a commit and count the call. Return None for an error to raise as it is."""
    description = describe_error(error)
    if isinstance(error, TypeError | ValueError):  # the client could not encode it; nothing was sent
        return Unacceptable(description)
    failure: WorkerError
    match error:
        case google_errors.InvalidArgument():
            answer, failure = "answered", Unacceptable(description)
        case (
            google_errors.FailedPrecondition()
            | google_errors.NotFound()  # a document was deleted
            | google_errors.Aborted()  # contention
            | google_errors.AlreadyExists()
        ):
            answer, failure = "answered", LostRace("firestore", description)
        case _ if isinstance(error, TRANSIENT):
            answer, failure = "unavailable", OutcomeUnknown("firestore", description)
        case google_errors.GoogleAPICallError():
            answer, failure = "refused", BackendRefused(FIRESTORE, description)
            drop_refused_tokens(error)
        case _:
            return None
    metrics.count_call("firestore", answer)
    return failure
