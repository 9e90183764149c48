"""Read a document, decide, and commit only if it is still the document that was read.

The loop under every write to a flow run. A lost race is read and decided again, with full jitter; a commit
without a clear answer is read again too, and the decision is told that its patch may already stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from google.api_core import exceptions as google_errors
from google.cloud.firestore_v1.base_client import BaseClient

from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.retry import (
    COMMIT_TIMEOUT_SECONDS,
    READ_RETRY,
    READ_TIMEOUT_SECONDS,
    TRANSIENT,
    backend_errors,
    contention_retrying,
    plain_words,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

GIVE_UP_AFTER_SECONDS = 30.0

T = TypeVar("T")


class DocumentSnapshot(Protocol):
    """What is needed of a snapshot. A minimal in-memory client's has neither `exists` nor `update_time`."""

    def to_dict(self) -> dict[str, Any] | None:
        """The document's fields."""


@dataclass(frozen=True, slots=True)
class Verdict(Generic[T]):
    """What a decision says: the patch to commit (None = nothing to write) and the result once it stands."""

    result: T
    patch: dict[str, Any] | None


class Decision(Protocol[T]):
    """A pure decision over a fresh read."""

    def __call__(self, snapshot: DocumentSnapshot, *, outcome_unknown: bool) -> Verdict[T]:
        """Decide; `outcome_unknown` tells that an earlier commit of the patch got no clear answer."""


class _LostRace(BackendUnavailable):
    """Somebody else wrote the document between our read and our commit."""


class _OutcomeUnknown(BackendUnavailable):
    """The commit may or may not have taken effect."""


class _ReadFailed(BackendUnavailable):
    """Firestore was away for one read; finished work is not given up for that."""


def document_of(snapshot: DocumentSnapshot) -> dict[str, Any] | None:
    """The document's fields, or None when there is no document."""
    return snapshot.to_dict() if getattr(snapshot, "exists", True) else None


def read_document(client: Any, collection: str, document_id: str) -> DocumentSnapshot:
    """Read a document once, retrying for a short while when Firestore is away.

    Raises:
        BackendUnavailable: Firestore is away.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(collection).document(document_id)
    with backend_errors("firestore"):
        if isinstance(client, BaseClient):
            snapshot: DocumentSnapshot = reference.get(retry=READ_RETRY, timeout=READ_TIMEOUT_SECONDS)
            return snapshot
        minimal: DocumentSnapshot = reference.get()
        return minimal


def create_document(client: Any, collection: str, document_id: str, document: Mapping[str, Any]) -> bool:
    """Create a document unless there is one of that id; whether it was created.

    Raises:
        BackendUnavailable: Firestore is away.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(collection).document(document_id)
    with backend_errors("firestore"):
        try:
            reference.create(dict(document), retry=READ_RETRY, timeout=COMMIT_TIMEOUT_SECONDS)
        except google_errors.AlreadyExists:
            return False
    return True


def compare_and_commit(
    client: Any,
    collection: str,
    document_id: str,
    decide: Decision[T],
    *,
    give_up_after_seconds: float = GIVE_UP_AFTER_SECONDS,
) -> T:
    """Run `decide` over fresh reads until its patch stands or it has nothing to write.

    Raises:
        BackendUnavailable: Firestore was away, or the race could not be won, for so long.
        BackendRefused: Firestore refuses.
    """
    outcome_unknown = False
    for attempt in contention_retrying(
        _LostRace, _OutcomeUnknown, _ReadFailed, give_up_after_seconds=give_up_after_seconds
    ):
        with attempt:
            try:
                snapshot = read_document(client, collection, document_id)
            except BackendUnavailable as error:
                raise _ReadFailed(error.backend, str(error.__cause__)) from error
            verdict = decide(snapshot, outcome_unknown=outcome_unknown)
            if verdict.patch is None:
                return verdict.result
            try:
                _commit(client, collection, document_id, snapshot, verdict.patch)
            except _OutcomeUnknown:
                outcome_unknown = True
                raise
            return verdict.result
    raise AssertionError("unreachable: the retry policy re-raises")


def _commit(
    client: Any, collection: str, document_id: str, snapshot: DocumentSnapshot, patch: dict[str, Any]
) -> None:
    """Commit once. The SDK's own retry is off: it would turn a commit that landed into a lost race."""
    reference = client.collection(collection).document(document_id)
    update_time = getattr(snapshot, "update_time", None)
    if update_time is None:
        reference.update(patch)
        return
    option = client.write_option(last_update_time=update_time)
    try:
        reference.update(patch, option=option, retry=None, timeout=COMMIT_TIMEOUT_SECONDS)
    except (google_errors.FailedPrecondition, google_errors.NotFound, google_errors.Aborted) as error:
        # NotFound: the document is gone. Aborted: contention, nothing was written.
        raise _LostRace("firestore", plain_words(error)) from error
    except TRANSIENT as error:
        raise _OutcomeUnknown("firestore", plain_words(error)) from error
    except google_errors.GoogleAPICallError:
        with backend_errors("firestore"):
            raise
