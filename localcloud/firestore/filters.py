"""Query filters: field, unary and composite."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore.field_paths import FieldPath, lookup, parse
from localcloud.firestore.messages import Query
from localcloud.firestore.values import NULL_RANK, SortKey, is_nan, path_key, sort_key
from localcloud.grpc_server import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    Matcher = Callable[[Any], bool]

_FIELD = Query.FieldFilter.Operator
_UNARY = Query.UnaryFilter.Operator
_COMPOSITE = Query.CompositeFilter.Operator
_REFERENCE_RANK = 6

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


def compile_filter(node: Any) -> Matcher:
    """Return a predicate on raw documents for a raw `Filter`.

    Raises:
        Refused: INVALID_ARGUMENT or UNIMPLEMENTED.
    """
    kind = node.WhichOneof("filter_type")
    if kind == "composite_filter":
        return _composite(node.composite_filter)
    if kind == "unary_filter":
        name = _UNARY.Name(node.unary_filter.op)
        return _on_field(node.unary_filter.field.field_path, _UNARIES.get(name), name)
    if kind == "field_filter":
        name = _FIELD.Name(node.field_filter.op)
        return _on_field(node.field_filter.field.field_path, _field_test(name, node.field_filter.value), name)
    raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "a filter must be set")


def inequality_fields(node: Any) -> list[FieldPath]:
    """Return the fields under an inequality, sorted: a query without an order sorts by them."""
    kind = node.WhichOneof("filter_type")
    if kind == "composite_filter":
        return sorted({path for item in node.composite_filter.filters for path in inequality_fields(item)})
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


def _composite(node: Any) -> Matcher:
    parts = [compile_filter(item) for item in node.filters]
    joined = all if _COMPOSITE.Name(node.op) == "AND" else any
    return lambda document: joined(part(document) for part in parts)


def _on_field(field_path: str, test: Callable[[SortKey], bool] | None, name: str) -> Matcher:
    if test is None:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"the filter {name} is not part of the local cloud")
    path = parse(field_path)
    if path == ("__name__",):
        return lambda document: test((_REFERENCE_RANK, path_key(document.name)))

    def matches(document: Any) -> bool:
        value = lookup(document.fields, path)
        return value is not None and test(sort_key(value))

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


_ARRAY_RANK = 8
