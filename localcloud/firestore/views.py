"""Read a database as a request asks for: now, at a past time, or in a transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud.firestore import queries
from localcloud.firestore.messages import to_instant
from localcloud.firestore.transactions import EVERYTHING, group_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from localcloud.firestore.field_paths import FieldPath
    from localcloud.firestore.store import Database
    from localcloud.firestore.transactions import Transaction


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The documents that one request sees.

    Attributes:
        database: The store.
        at: The instant of the reads, microseconds since 1970; None = now.
        lock_for: The read-write transaction that reads.
        opened: The id of the transaction that the request has opened; empty = none.
    """

    database: Database
    at: int | None = None
    lock_for: Transaction | None = None
    opened: bytes = b""

    def read(self, names: Collection[str]) -> tuple[int, dict[str, Any | None]]:
        """Return documents by name, and the instant of the read. See `Database.read`."""
        return self.database.read(names, self.at, self.lock_for)

    def documents_of(self, parent: str, query: Any) -> tuple[int, list[Any]]:
        """Return all documents of the collections that a raw `StructuredQuery` reads, and the instant.

        Raises:
            Refused: A malformed source, or an instant that can't be read.
        """
        with self.database.unchanged():
            if self.lock_for is not None:
                self.database.lock(self.lock_for, [_lock_of(parent, query)])
            collections = queries.sources(query, parent, self.database.collections(self.at))
            return self.database.documents_in(collections, self.at)

    def run(self, parent: str, query: Any, fields: Sequence[FieldPath] = ()) -> tuple[int, list[Any]]:
        """Return the documents that match a raw `StructuredQuery`, and the instant. See `queries.run`."""
        instant, documents = self.documents_of(parent, query)
        return instant, queries.run(query, documents, fields)


def view(database: Database, request: Any) -> View:
    """Return what a raw request with a consistency selector sees; begin a transaction if it asks for one.

    Raises:
        Refused: INVALID_ARGUMENT, an unknown transaction or an impossible time.
    """
    selector = request.WhichOneof("consistency_selector")
    if selector is None:
        return View(database=database)
    if selector == "read_time":
        return View(database=database, at=to_instant(request.read_time))
    if selector == "transaction":
        transaction, opened = database.transaction(request.transaction), b""
    else:
        transaction = database.begin(request.new_transaction)
        opened = transaction.id
    read_only = transaction.instant is not None
    return View(
        database=database,
        at=transaction.instant,
        lock_for=None if read_only else transaction,
        opened=opened,
    )


def _lock_of(parent: str, query: Any) -> str:
    collection_id, all_descendants = queries.selector_of(query)
    if not collection_id:
        return EVERYTHING
    return group_lock(collection_id) if all_descendants else f"{parent}/{collection_id}"
