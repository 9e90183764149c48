"""The targets of a Listen stream: which documents each one shows, and what has changed since then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud.firestore import queries
from localcloud.firestore.limits import check_name, check_parent
from localcloud.firestore.messages import ListenResponse, set_timestamp
from localcloud.firestore.store import collection_of
from localcloud.firestore.unserved import UNSERVED
from localcloud.firestore.views import View
from localcloud.grpc_server import NotServed, invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localcloud.firestore.store import Database

    #: Raw documents by name; None = the client knows that the document is missing.
    Shown = dict[str, Any | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a client listens to: documents by name, or a query.

    Attributes:
        id: Its number in the stream.
        names: The full names of documents.
        parent: The parent of the query.
        query: The raw `StructuredQuery`; None = documents by name.
    """

    id: int
    names: tuple[str, ...] = ()
    parent: str = ""
    query: Any | None = None

    def concerns(self, names: Iterable[str]) -> bool:
        """Return whether a change of these documents can change what it shows."""
        if self.query is None:
            return not set(self.names).isdisjoint(names)
        collections = {collection_of(name) for name in names}
        return not collections.isdisjoint(queries.sources(self.query, self.parent, collections))

    def load(self, database: Database) -> Shown:
        """Return the documents that it shows now.

        Raises:
            Refused: A malformed query.
        """
        if self.query is None:
            return database.read(self.names)[1]
        _, documents = View(database=database).run(self.parent, self.query)
        return {document.name: document for document in documents}


def parse_target(request: Any, target_id: int, database: Database) -> Target:
    """Return the target of a raw `Target`.

    Raises:
        Refused: INVALID_ARGUMENT or UNIMPLEMENTED, it is malformed or not served.
    """
    if request.once:
        raise NotServed("Target.once", UNSERVED)
    kind = request.WhichOneof("target_type")
    if kind == "documents":
        names = tuple(dict.fromkeys(request.documents.documents))
        for name in names:
            check_name(name, database.name)
        return Target(id=target_id, names=names)
    if kind != "query" or request.query.WhichOneof("query_type") is None:
        raise invalid("a target must have documents or a structured query")
    check_parent(request.query.parent)
    return Target(id=target_id, parent=request.query.parent, query=request.query.structured_query)


def changes(target: Target, before: Shown, after: Shown, existing: Iterable[str], instant: int) -> list[Any]:
    """Return the raw `ListenResponse`s that lead from what a target showed to what it shows now.

    Args:
        target: The target.
        before: What it showed; empty at first.
        after: What it shows now.
        existing: The names among `before` that still exist, although the target may no longer show them.
        instant: The instant of `after`, microseconds since 1970.
    """
    responses = []
    kept = set(existing)
    for name in [*(name for name in before if name not in after), *after]:
        document = after.get(name)
        if name in before and _same(before[name], document):
            continue
        response = ListenResponse()
        if document is not None:
            response.document_change.document.CopyFrom(document)
            response.document_change.target_ids.append(target.id)
        else:
            gone = response.document_remove if name in kept else response.document_delete
            gone.document = name
            gone.removed_target_ids.append(target.id)
            set_timestamp(gone.read_time, instant)
        responses.append(response)
    return responses


def _same(one: Any | None, other: Any | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.update_time == other.update_time)
