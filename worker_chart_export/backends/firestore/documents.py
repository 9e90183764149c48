"""Documents read and written with our errors. For what is not a flow run, and for minimal clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from google.api_core import exceptions as google_errors
from google.cloud.firestore_v1.base_client import BaseClient

from worker_chart_export.backends.errors import (
    COMMIT_TIMEOUT_SECONDS,
    READ_RETRY,
    READ_TIMEOUT_SECONDS,
    backend_errors,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class DocumentSnapshot(Protocol):
    """What is needed of a snapshot. A minimal in-memory client's has neither `exists` nor `update_time`."""

    def to_dict(self) -> dict[str, Any] | None:
        """The document's fields."""


def is_minimal(client: Any) -> bool:
    """Whether it is an in-memory client that gets and updates one document at a time, and nothing else."""
    return not isinstance(client, BaseClient)


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
        options = {} if is_minimal(client) else {"retry": READ_RETRY, "timeout": READ_TIMEOUT_SECONDS}
        snapshot: DocumentSnapshot = reference.get(**options)
        return snapshot


def read_collection(client: Any, collection: str) -> dict[str, dict[str, Any]]:
    """All documents of a small collection: id -> fields, by id.

    Raises:
        BackendUnavailable: Firestore is away.
        BackendRefused: Firestore refuses.
    """
    with backend_errors("firestore"):
        snapshots = client.collection(collection).stream(retry=READ_RETRY, timeout=READ_TIMEOUT_SECONDS)
        return {snapshot.id: snapshot.to_dict() for snapshot in snapshots}


def replace_document(client: Any, collection: str, document_id: str, document: Mapping[str, Any]) -> None:
    """Write a document whole, whether it is there or not.

    Raises:
        BackendUnavailable: Firestore is away.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(collection).document(document_id)
    with backend_errors("firestore"):
        reference.set(dict(document), retry=READ_RETRY, timeout=COMMIT_TIMEOUT_SECONDS)


def create_document(reference: Any, document: Mapping[str, Any]) -> bool:
    """Create a document unless it is there; whether it was created.

    Raises:
        BackendUnavailable: Firestore is away.
        BackendRefused: Firestore refuses.
    """
    with backend_errors("firestore"):
        try:
            reference.create(dict(document), retry=READ_RETRY, timeout=COMMIT_TIMEOUT_SECONDS)
        except google_errors.AlreadyExists:
            return False
    return True
