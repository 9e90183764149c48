"""Run structured queries: sources, order, cursors, projection. The filters are in `filters`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore.field_paths import NAME, FieldPath, parse, project
from localcloud.firestore.filters import compile_filter, key_at, ordering_fields
from localcloud.firestore.limits import check_collection_id
from localcloud.firestore.messages import Query
from localcloud.firestore.unserved import UNSERVED
from localcloud.firestore.values import SortKey, sort_key
from localcloud.grpc_server import NotServed, Refused, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_DESCENDING = Query.Direction.Value("DESCENDING")

# A field and whether it sorts descending.
Order = tuple[FieldPath, bool]


def selector_of(query: Any) -> tuple[str, bool]:
    """Return the collection id that a raw `StructuredQuery` reads, and whether at every depth.

    An empty id stands for all collections.

    Raises:
        Refused: INVALID_ARGUMENT, more than one collection, or an id that no collection can have.
    """
    if len(query.from_) > 1:
        raise invalid("StructuredQuery.from cannot have more than one collection selector.")
    if not query.from_:
        return "", False
    selector = query.from_[0]
    if selector.collection_id:
        check_collection_id(selector.collection_id)
    return str(selector.collection_id), bool(selector.all_descendants)


def sources(query: Any, parent: str, collections: Iterable[str]) -> list[str]:
    """Return the collections that a raw `StructuredQuery` below `parent` reads."""
    collection_id, all_descendants = selector_of(query)
    if collection_id and not all_descendants:
        return [f"{parent}/{collection_id}"]
    below = len(parent) + 1
    return [
        path
        for path in collections
        if path.startswith(f"{parent}/")
        and (all_descendants or "/" not in path[below:])
        and collection_id in ("", path.rpartition("/")[2])
    ]


def run(query: Any, documents: Iterable[Any], fields: Sequence[FieldPath] = ()) -> list[Any]:
    """Return the raw documents that match `query`, in its order and with its projection.

    Args:
        query: A raw `StructuredQuery`.
        documents: The raw documents of its sources.
        fields: Fields that every result must have; the query also sorts by them, as by an inequality.

    Raises:
        Refused: INVALID_ARGUMENT or UNIMPLEMENTED, a query that is wrong or not known here.
    """
    if query.HasField("find_nearest"):
        raise NotServed("StructuredQuery.find_nearest", UNSERVED)
    matches = compile_filter(query.where) if query.HasField("where") else None
    orders = _orders(query, fields)
    _check_bounds(query)
    rows = [
        (keys, document)
        for document in documents
        if matches is None or matches(document)
        if all(keys := [key_at(document, path) for path, _ in orders])
    ]
    for position in reversed(range(len(orders))):
        rows.sort(key=partial(_key_at_position, position), reverse=orders[position][1])
    selected, within = _selected_fields(query), _bounds(query, orders)
    found = [document for keys, document in rows if within(keys)]
    end = query.offset + query.limit.value if query.HasField("limit") else None
    page = found[query.offset : end]
    return page if selected is None else [project(document, selected) for document in page]


def _key_at_position(position: int, row: tuple[Sequence[SortKey], Any]) -> SortKey:
    return row[0][position]


def _selected_fields(query: Any) -> list[FieldPath] | None:
    if not query.HasField("select"):
        return None
    paths = [parse(field.field_path) for field in query.select.fields]
    return [path for path in paths if path != NAME]


def _orders(query: Any, fields: Sequence[FieldPath]) -> list[Order]:
    """Return the named orders, then `fields` and those under an inequality, then the name.

    What is not named has the direction of the last named order.
    """
    orders = [(parse(item.field.field_path), item.direction == _DESCENDING) for item in query.order_by]
    named = [path for path, _ in orders]
    for position, path in enumerate(named):
        if path in named[:position]:
            raise invalid(f"order by clause cannot contain duplicate fields {'.'.join(path)}")
    inequalities = ordering_fields(query.where) if query.HasField("where") else []
    direction = orders[-1][1] if orders else False
    implied = sorted({*inequalities, *fields}.difference([*named, NAME]))
    orders += [(path, direction) for path in implied]
    paths = [path for path, _ in orders]
    if NAME in paths[:-1]:
        raise invalid("order by clause cannot contain more fields after the key")
    if orders == [(NAME, True)]:
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "Firestore does not support descending key scans")
    return orders if NAME in paths else [*orders, (NAME, direction)]


def _check_bounds(query: Any) -> None:
    if query.limit.value < 0:
        raise invalid("limit is negative")
    if query.offset < 0:
        raise invalid("offset is negative")
    for cursor in (query.start_at, query.end_at):
        if len(cursor.values) > len(query.order_by):
            raise invalid("Cursor has too many values.")
        for order, value in zip(query.order_by, cursor.values, strict=False):
            if parse(order.field.field_path) == NAME and value.WhichOneof("value_type") != "reference_value":
                raise invalid("Cursor __key__ value is not a document reference.")


def _bounds(query: Any, orders: Sequence[Order]) -> Callable[[Sequence[SortKey]], bool]:
    """Return whether a document with these sort keys, one for each order, is between the cursors."""
    start = [sort_key(value) for value in query.start_at.values] if query.HasField("start_at") else None
    end = [sort_key(value) for value in query.end_at.values] if query.HasField("end_at") else None

    def side(keys: Sequence[SortKey], cursor: Sequence[SortKey]) -> int:
        for (_, descending), mine, theirs in zip(orders, keys, cursor, strict=False):
            if mine != theirs:
                return -1 if (mine < theirs) != descending else 1
        return 0

    def within(keys: Sequence[SortKey]) -> bool:
        if start is not None and side(keys, start) < (0 if query.start_at.before else 1):
            return False
        return end is None or side(keys, end) < (0 if query.end_at.before else 1)

    return within
