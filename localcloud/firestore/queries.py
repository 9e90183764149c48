"""Run structured queries: sources, filters, order, cursors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore import filters
from localcloud.firestore.field_paths import FieldPath, lookup, parse, project
from localcloud.firestore.messages import Query
from localcloud.firestore.values import SortKey, path_key, sort_key
from localcloud.grpc_server import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NAME = ("__name__",)
_DESCENDING = Query.Direction.Value("DESCENDING")

# A field and whether it sorts descending.
Order = tuple[FieldPath, bool]


def sources(query: Any, parent: str, collections: Iterable[str]) -> list[str]:
    """Return the collections that a raw `StructuredQuery` below `parent` reads."""
    chosen = []
    for selector in query.from_:
        child = f"{parent}/{selector.collection_id}"
        chosen += [
            path
            for path in collections
            if path == child or (selector.all_descendants and _below(path, parent, selector))
        ]
    return chosen


def _below(path: str, parent: str, selector: Any) -> bool:
    return path.startswith(f"{parent}/") and selector.collection_id in ("", path.rpartition("/")[2])


def run(query: Any, documents: Iterable[Any]) -> list[Any]:
    """Return the raw documents that match `query`, in its order and with its projection.

    Raises:
        Refused: INVALID_ARGUMENT or UNIMPLEMENTED, a query that is wrong or not known here.
    """
    if query.HasField("find_nearest"):
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, "find_nearest is not part of the local cloud")
    matches = filters.compile_filter(query.where) if query.HasField("where") else None
    orders = _orders(query)
    found = [
        document
        for document in documents
        if _has_all(document, orders) and (matches is None or matches(document))
    ]
    if orders == [(NAME, True)]:
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "Firestore does not support descending key scans")
    for path, descending in reversed(orders):
        found.sort(key=_key_of(path), reverse=descending)
    found = [document for document in found if _within(query, orders, document)]
    end = query.offset + query.limit.value if query.HasField("limit") else None
    return [_select(query, document) for document in found[query.offset : end]]


def _orders(query: Any) -> list[Order]:
    orders = [(parse(item.field.field_path), item.direction == _DESCENDING) for item in query.order_by]
    if not orders:
        orders = [(path, False) for path in filters.inequality_fields(query.where)]
    if NAME not in [path for path, _ in orders]:
        orders.append((NAME, orders[-1][1] if orders else False))
    return orders


def key_at(document: Any, path: FieldPath) -> SortKey | None:
    """Return the sort key of a field of a raw document, or None when it is absent. `__name__` is the name."""
    if path == NAME:
        return (6, path_key(document.name))
    value = lookup(document.fields, path)
    return None if value is None else sort_key(value)


def _key_of(path: FieldPath) -> Callable[[Any], SortKey]:
    return lambda document: key_at(document, path) or ()


def _has_all(document: Any, orders: Sequence[Order]) -> bool:
    return all(path == NAME or lookup(document.fields, path) is not None for path, _ in orders)


def _within(query: Any, orders: Sequence[Order], document: Any) -> bool:
    if query.HasField("start_at"):
        side = _compare(document, query.start_at, orders)
        if side < 0 or (side == 0 and not query.start_at.before):
            return False
    if query.HasField("end_at"):
        side = _compare(document, query.end_at, orders)
        return side < 0 or (side == 0 and not query.end_at.before)
    return True


def _compare(document: Any, cursor: Any, orders: Sequence[Order]) -> int:
    for (path, descending), value in zip(orders, cursor.values, strict=False):
        mine, theirs = key_at(document, path) or (), sort_key(value)
        if mine != theirs:
            return -1 if (mine < theirs) != descending else 1
    return 0


def _select(query: Any, document: Any) -> Any:
    if not query.HasField("select"):
        return document
    paths = [parse(field.field_path) for field in query.select.fields]
    return project(document, [path for path in paths if path != NAME])
