"""Read Firestore documents, read many of them lazily, and commit write batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as google_errors
from google.cloud.firestore_v1._helpers import decode_value

from worker_chart_export.backends.access_tokens import drop_refused_tokens
from worker_chart_export.backends.errors import (
    COMMIT_TIMEOUT_SECONDS,
    READ_RETRY,
    READ_TIMEOUT_SECONDS,
    TRANSIENT,
    backend_errors,
    describe_error,
)
from worker_chart_export.errors import BackendRefused, BackendUnavailable, WorkerError
from worker_chart_export.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from google.cloud.firestore_v1.base_document import DocumentSnapshot


def document_of(snapshot: DocumentSnapshot[Any]) -> dict[str, Any] | None:
    """Return the document's fields, or None when there is no document."""
    return snapshot.to_dict() if snapshot.exists else None


def read_document(client: Any, collection: str, document_id: str) -> DocumentSnapshot[Any]:
    """Read a document. Retry for a short time while Firestore is unavailable.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(collection).document(document_id)
    with backend_errors("firestore"):
        snapshot: DocumentSnapshot[Any] = reference.get(retry=READ_RETRY, timeout=READ_TIMEOUT_SECONDS)
        return snapshot


def read_collection(client: Any, collection: str) -> dict[str, dict[str, Any]]:
    """Read all documents of a small collection. Return their fields by document id.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    with backend_errors("firestore"):
        snapshots = client.collection(collection).stream(retry=READ_RETRY, timeout=READ_TIMEOUT_SECONDS)
        return {snapshot.id: snapshot.to_dict() for snapshot in snapshots}


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


class LazyFields(Mapping[str, Any]):
    """The fields of a document, each decoded at its first use. Nested maps are lazy too.

    Args:
        values: Field name -> `Value` of the wire format. Never changed.
        client: The client that read them.
        depth: How many levels of maps are lazy. Three reach the fields of a run's step.
    """

    def __init__(self, values: Any, client: Any, *, depth: int = 3) -> None:
        self._values = dict(values)  # a map of the wire format adds an entry for each key that is looked up
        self._client = client
        self._depth = depth
        self._decoded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._decoded:
            value = self._values[name]
            # Firestore encodes vectors and the like as maps with names that start with `__`.
            if (
                self._depth > 1
                and value.WhichOneof("value_type") == "map_value"
                and not any(key.startswith("__") for key in value.map_value.fields)
            ):
                decoded: Any = LazyFields(value.map_value.fields, self._client, depth=self._depth - 1)
            else:
                decoded = decode_value(value, self._client)
            self._decoded[name] = decoded
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class LazySnapshot:
    """A document as it was read.

    Attributes:
        fields: Its fields, or None when there is no document.
        update_time: When it was last written, or None when there is no document.
        read_time: The server's time of the read.
    """

    fields: Mapping[str, Any] | None
    update_time: datetime | None
    read_time: datetime


def read_documents(client: Any, references: Sequence[Any]) -> list[LazySnapshot]:
    """Read documents at one moment. Return them in the order of `references`.

    A large run is read often, and few of its steps are used each time. `DocumentReference.get()` decodes all
    steps and copies the result twice: 140 ms for a run of 1,000 steps. The read itself takes 7 ms. So this
    function uses private parts of Google's client. No other function does that.

    Raises:
        BackendUnavailable: Firestore is unavailable, or its answer lacks a document.
        BackendRefused: Firestore refuses.
    """
    names = [reference._document_path for reference in references]  # noqa: SLF001 - see above
    found: dict[str, LazySnapshot] = {}
    with backend_errors("firestore"):
        answers = client._firestore_api.batch_get_documents(  # noqa: SLF001 - see above
            request={"database": client._database_string, "documents": names},  # noqa: SLF001
            metadata=client._rpc_metadata,  # noqa: SLF001
            retry=READ_RETRY,
            timeout=READ_TIMEOUT_SECONDS,
        )
        for answer in answers:
            name, fields, update_time = answer.missing, None, None
            if "found" in answer:
                document = answer.found
                name, update_time = document.name, document.update_time
                fields = LazyFields(type(document).pb(document).fields, client)
            found[name] = LazySnapshot(fields=fields, update_time=update_time, read_time=answer.read_time)
    for name in names:
        if name not in found:
            raise BackendUnavailable("firestore", f"its answer lacks the document {name}")
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
        raise failure from error
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
            answer, failure = "refused", BackendRefused("firestore", description)
            drop_refused_tokens(error)
        case _:
            return None
    metrics.count_call("firestore", answer)
    return failure
