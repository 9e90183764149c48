"""The filters of structured queries: check them, and compile them to predicates on raw documents."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from localcloud.firestore.field_paths import NAME, FieldPath, lookup, parse
from localcloud.firestore.messages import Query
from localcloud.firestore.values import NULL_RANK, SortKey, is_nan, path_key, sort_key
from localcloud.grpc_server import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Matcher = Callable[[Any], bool]
    Test = Callable[[SortKey], bool]

_FIELD = Query.FieldFilter.Operator
_UNARY = Query.UnaryFilter.Operator
_COMPOSITE = Query.CompositeFilter.Operator
_REFERENCE_RANK, _ARRAY_RANK = 6, 8
_NULL: SortKey = (NULL_RANK,)
#: Equal to no sort key of a value.
_NOTHING: SortKey = (-1,)
_MAX_DISJUNCTIONS = 30
#: Operators on a list of values, and how many they take.
_LISTS = {"IN": _MAX_DISJUNCTIONS, "ARRAY_CONTAINS_ANY": _MAX_DISJUNCTIONS, "NOT_IN": 10}
_NEGATIONS = frozenset({"NOT_EQUAL", "NOT_IN", "IS_NOT_NAN", "IS_NOT_NULL"})

_INEQUALITIES: dict[str, Callable[[SortKey, SortKey], bool]] = {
    "LESS_THAN": operator.lt,
    "LESS_THAN_OR_EQUAL": operator.le,
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_OR_EQUAL": operator.ge,
}
#: The filters on whose field a query sorts if it names no order for it.
_ORDERING = frozenset({*_INEQUALITIES, "NOT_EQUAL", "NOT_IN", "IS_NOT_NULL", "IS_NOT_NAN"})
_UNARIES: dict[str, Test] = {
    "IS_NULL": lambda key: key[0] == NULL_RANK,
    "IS_NOT_NULL": lambda key: key[0] != NULL_RANK,
    "IS_NAN": is_nan,
    "IS_NOT_NAN": lambda key: key[0] != NULL_RANK and not is_nan(key),
}


def compile_filter(node: Any) -> Matcher:
    """Return a predicate on raw documents for a raw `Filter`.

    Raises:
        Refused: INVALID_ARGUMENT, the filter is malformed or its parts can't be combined.
    """
    matcher = _compile(node)
    _check_combination(node, [name for name, _ in _leaves(node)])
    return matcher


def ordering_fields(node: Any) -> list[FieldPath]:
    """Return the fields under an inequality, sorted: a query without an order for them sorts by them.

    As on the official emulator, not those under a comparison with null or NaN, which is never true.
    """
    return sorted(
        {
            parse(leaf.field.field_path)
            for name, leaf in _leaves(node)
            if name in _ORDERING and not (name in _INEQUALITIES and _is_never_true(leaf.value))
        }
    )


def key_at(document: Any, path: FieldPath) -> SortKey:
    """Return the sort key of a field of a raw document, empty if it is absent. `__name__` is the name."""
    if path == NAME:
        return (_REFERENCE_RANK, path_key(document.name))
    value = lookup(document.fields, path)
    return () if value is None else sort_key(value)


def _leaves(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield each raw filter that is not composite, after the name of its operator."""
    kind = node.WhichOneof("filter_type")
    if kind == "composite_filter":
        for part in node.composite_filter.filters:
            yield from _leaves(part)
    elif kind == "field_filter":
        yield _name_of(_FIELD, node.field_filter.op), node.field_filter
    elif kind == "unary_filter":
        yield _name_of(_UNARY, node.unary_filter.op), node.unary_filter


def _is_never_true(operand: Any) -> bool:
    key = sort_key(operand)
    return key == _NULL or is_nan(key)


def _name_of(operators: Any, number: int) -> str:
    """Return the name of an operator; `""` for one of a later API."""
    return str(operators.Name(number)) if number in operators.values() else ""


def _check_combination(node: Any, names: list[str]) -> None:
    if sum(name in _NEGATIONS for name in names) > 1:
        kinds = "'NOT_EQUAL', 'NOT_IN', 'IS_NOT_NAN', or 'IS_NOT_NULL'"
        raise invalid(f"Only a single {kinds} filter allowed per query.")
    if "NOT_IN" in names and ({"IN", "ARRAY_CONTAINS_ANY"}.intersection(names) or _has_or(node)):
        others = "'IN', 'ARRAY_CONTAINS_ANY' or 'OR'"
        raise invalid(f"'NOT_IN' cannot be used in the same query with {others}.")
    disjunctions, contains = _normal_form(node)
    if contains > 1:
        raise invalid("A maximum of 1 'ARRAY_CONTAINS' filter is allowed per disjunction.")
    if disjunctions > _MAX_DISJUNCTIONS:
        message = f"Result had {disjunctions} disjunctions which is more than the maximum of"
        raise invalid(f"Too many disjunctions after normalization. {message} {_MAX_DISJUNCTIONS}")


def _has_or(node: Any) -> bool:
    if node.WhichOneof("filter_type") != "composite_filter":
        return False
    composite = node.composite_filter
    return _name_of(_COMPOSITE, composite.op) == "OR" or any(_has_or(part) for part in composite.filters)


def _normal_form(node: Any) -> tuple[int, int]:
    """Return how many parts the filter has as an OR of ANDs, and the most `ARRAY_CONTAINS` in one of them."""
    kind = node.WhichOneof("filter_type")
    if kind == "composite_filter":
        parts = [_normal_form(part) for part in node.composite_filter.filters] or [(1, 0)]
        if _name_of(_COMPOSITE, node.composite_filter.op) == "OR":
            return sum(count for count, _ in parts), max(contains for _, contains in parts)
        product = 1
        for count, _ in parts:
            product *= count
        return product, sum(contains for _, contains in parts)
    if kind != "field_filter":
        return 1, 0
    name = _name_of(_FIELD, node.field_filter.op)
    values = len(node.field_filter.value.array_value.values) if name in ("IN", "ARRAY_CONTAINS_ANY") else 1
    return values, int(name in ("ARRAY_CONTAINS", "ARRAY_CONTAINS_ANY"))


def _compile(node: Any) -> Matcher:
    kind = node.WhichOneof("filter_type")
    if kind == "composite_filter":
        return _compile_composite(node.composite_filter)
    if kind == "unary_filter":
        name = _name_of(_UNARY, node.unary_filter.op)
        if name not in _UNARIES:
            raise invalid("Unknown UnaryFilter operator.")
        path = parse(node.unary_filter.field.field_path)
        if path == NAME:
            raise invalid("__key__ filter value must be a Key")
        return _on_field(path, _UNARIES[name])
    if kind == "field_filter":
        name = _name_of(_FIELD, node.field_filter.op)
        path = parse(node.field_filter.field.field_path)
        _check_operand(name, path, node.field_filter.value)
        return _on_field(path, _field_test(name, node.field_filter.value))
    raise invalid("Unknown Filter type.")


def _compile_composite(composite: Any) -> Matcher:
    name = _name_of(_COMPOSITE, composite.op)
    if name not in ("AND", "OR"):
        raise invalid("Unsupported CompositeFilter operator.")
    if name == "OR" and not composite.filters:
        raise invalid("Composite filter must have at least one sub-filter.")
    parts = [_compile(part) for part in composite.filters]
    joined = all if name == "AND" else any
    return lambda document: joined(part(document) for part in parts)


def _check_operand(name: str, path: FieldPath, operand: Any) -> None:
    kind = operand.WhichOneof("value_type")
    values = [operand]
    if name in _LISTS:
        if kind != "array_value":
            raise invalid(f"'{name}' requires an ArrayValue.")
        values = operand.array_value.values
        if not values:
            raise invalid(f"'{name}' requires an non-empty ArrayValue.")
        if len(values) > _LISTS[name]:
            raise invalid(f"'{name}' supports up to {_LISTS[name]} comparison values.")
    kinds = {value.WhichOneof("value_type") for value in values}
    if None in kinds:
        raise invalid("Cannot convert firestore.v1.Value with type unset.")
    if path == NAME and name.startswith("ARRAY_"):
        raise invalid("the name __key__ is reserved")
    if path == NAME and kinds != {"reference_value"}:
        raise invalid("__key__ filter value must be a Key")


def _on_field(path: FieldPath, test: Test) -> Matcher:
    def matches(document: Any) -> bool:
        key = key_at(document, path)
        return bool(key) and test(key)

    return matches


def _field_test(name: str, operand: Any) -> Test:
    """Return the test of a field filter on a sort key. Null matches nothing; NaN equals nothing."""
    wanted = _NOTHING if is_nan(sort_key(operand)) else sort_key(operand)
    items = [item for item in wanted[1] if item != _NULL and not is_nan(item)] if name in _LISTS else []
    if wanted == _NULL or (name == "NOT_IN" and _NULL in wanted[1]):
        return lambda _: False
    if name in _INEQUALITIES:
        compare = _INEQUALITIES[name]
        # Inequalities match only values of their own type, and never NaN.
        return lambda key: key[0] == wanted[0] and not is_nan(key) and compare(key, wanted)
    tests: dict[str, Test] = {
        "EQUAL": lambda key: key == wanted,
        "NOT_EQUAL": lambda key: key not in (wanted, _NULL),
        "IN": lambda key: key in items,
        "NOT_IN": lambda key: key not in items and key != _NULL,
        "ARRAY_CONTAINS": lambda key: key[0] == _ARRAY_RANK and wanted in key[1],
        "ARRAY_CONTAINS_ANY": lambda key: key[0] == _ARRAY_RANK and any(item in key[1] for item in items),
    }
    if name not in tests:
        raise invalid("Unknown FieldFilter operator.")
    return tests[name]
