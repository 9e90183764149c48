"""Run structured queries: sources, filters (field, unary and composite), order, cursors."""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore.field_paths import FieldPath, lookup, parse, project
from localcloud.firestore.messages import Query
from localcloud.firestore.values import NULL_RANK, SortKey, is_nan, path_key, sort_key
from localcloud.grpc_server import Refused, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Matcher = Callable[[Any], bool]

NAME = ("__name__",)
_DESCENDING = Query.Direction.Value("DESCENDING")

# A field and whether it sorts descending.
Order = tuple[FieldPath, bool]

_FIELD = Query.FieldFilter.Operator
_UNARY = Query.UnaryFilter.Operator
_COMPOSITE = Query.CompositeFilter.Operator
_REFERENCE_RANK, _ARRAY_RANK = 6, 8

_INEQUALITIES: dict[str, Callable[[SortKey, SortKey], bool]] = {
    "LESS_THAN": operator.lt,
    "LESS_THAN_OR_EQUAL": operator.le,
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_OR_EQUAL": operator.ge,
}
_UNARIES: dict[str, Callable[[SortKey], bool]] = {
    "IS_NULL": lambda key: key[0] == NULL_RANK,
    "IS_NOT_NULL": lambda key: key[0] != NULL_RANK,
    "IS_NAN": is_nan,
    "IS_NOT_NAN": lambda key: not is_nan(key),
}


def sources(query: Any, parent: str, collections: Iterable[str]) -> list[str]:
    """Return the collections that a raw `StructuredQuery` below `parent` reads."""
    chosen = []
    for selector in query.from_:
        child = f"{parent}/{selector.collection_id}"
        chosen += [
            path
            for path in collections
            if path == child
            or (
                selector.all_descendants
                and path.startswith(f"{parent}/")
                and selector.collection_id in ("", path.rpartition("/")[2])
            )
        ]
    return chosen


def run(query: Any, documents: Iterable[Any]) -> list[Any]:
    """Return the raw documents that match `query`, in its order and with its projection.

    Raises:
        Refused: INVALID_ARGUMENT or UNIMPLEMENTED, a query that is wrong or not known here.
    """
    if query.HasField("find_nearest"):
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, "find_nearest is not part of the local cloud")
    matches = _compile_filter(query.where) if query.HasField("where") else None
    orders = _orders(query)
    found = [
        document
        for document in documents
        if all(key_at(document, path) for path, _ in orders) and (matches is None or matches(document))
    ]
    if orders == [(NAME, True)]:
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "Firestore does not support descending key scans")
    for path, descending in reversed(orders):
        found.sort(key=partial(key_at, path=path), reverse=descending)
    found = [document for document in found if _within(query, orders, document)]
    end = query.offset + query.limit.value if query.HasField("limit") else None
    return [_select(query, document) for document in found[query.offset : end]]


def _orders(query: Any) -> list[Order]:
    orders = [(parse(item.field.field_path), item.direction == _DESCENDING) for item in query.order_by]
    if not orders:
        orders = [(path, False) for path in _inequality_fields(query.where)]
    if NAME not in [path for path, _ in orders]:
        orders.append((NAME, orders[-1][1] if orders else False))
    return orders


def key_at(document: Any, path: FieldPath) -> SortKey:
    """Return the sort key of a field of a raw document, empty if it is absent. `__name__` is the name."""
    if path == NAME:
        return (_REFERENCE_RANK, path_key(document.name))
    value = lookup(document.fields, path)
    return () if value is None else sort_key(value)


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
        mine, theirs = key_at(document, path), sort_key(value)
        if mine != theirs:
            return -1 if (mine < theirs) != descending else 1
    return 0


def _select(query: Any, document: Any) -> Any:
    if not query.HasField("select"):
        return document
    paths = [parse(field.field_path) for field in query.select.fields]
    return project(document, [path for path in paths if path != NAME])


def _compile_filter(node: Any) -> Matcher:
    """Return a predicate on raw documents for a raw `Filter`.

    Raises:
        Refused: INVALID_ARGUMENT or UNIMPLEMENTED.
    """
    kind = node.WhichOneof("filter_type")
    if kind == "composite_filter":
        parts = [_compile_filter(item) for item in node.composite_filter.filters]
        joined = all if _COMPOSITE.Name(node.composite_filter.op) == "AND" else any
        return lambda document: joined(part(document) for part in parts)
    if kind == "unary_filter":
        name = _UNARY.Name(node.unary_filter.op)
        return _on_field(node.unary_filter.field.field_path, _UNARIES.get(name), name)
    if kind == "field_filter":
        name = _FIELD.Name(node.field_filter.op)
        return _on_field(node.field_filter.field.field_path, _field_test(name, node.field_filter.value), name)
    raise invalid("a filter must be set")


def _inequality_fields(node: Any) -> list[FieldPath]:
    """Return the fields under an inequality, sorted: a query without an order sorts by them."""
    kind = node.WhichOneof("filter_type")
    if kind == "composite_filter":
        return sorted({path for item in node.composite_filter.filters for path in _inequality_fields(item)})
    if kind == "unary_filter":
        ordering = _UNARY.Name(node.unary_filter.op) in ("IS_NOT_NULL", "IS_NOT_NAN")
        return [parse(node.unary_filter.field.field_path)] if ordering else []
    if kind == "field_filter" and _FIELD.Name(node.field_filter.op) in (
        *_INEQUALITIES,
        "NOT_EQUAL",
        "NOT_IN",
    ):
        return [parse(node.field_filter.field.field_path)]
    return []


def _on_field(field_path: str, test: Callable[[SortKey], bool] | None, name: str) -> Matcher:
    if test is None:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"the filter {name} is not part of the local cloud")
    path = parse(field_path)

    def matches(document: Any) -> bool:
        key = key_at(document, path)
        return bool(key) and test(key)

    return matches


def _field_test(name: str, operand: Any) -> Callable[[SortKey], bool] | None:
    wanted = sort_key(operand)
    if name in _INEQUALITIES:
        compare = _INEQUALITIES[name]
        # Inequalities match only values of their own type. NaN matches none.
        return lambda key: key[0] == wanted[0] and not is_nan(key) and compare(key, wanted)
    tests: dict[str, Callable[[SortKey], bool]] = {
        "EQUAL": lambda key: key == wanted,
        "NOT_EQUAL": lambda key: key not in (wanted, (NULL_RANK,)),
        "IN": lambda key: key in wanted[1],
        "NOT_IN": lambda key: key not in wanted[1] and key != (NULL_RANK,),
        "ARRAY_CONTAINS": lambda key: key[0] == _ARRAY_RANK and wanted in key[1],
        "ARRAY_CONTAINS_ANY": lambda key: key[0] == _ARRAY_RANK and any(item in key[1] for item in wanted[1]),
    }
    return tests.get(name)
