"""Aggregate the documents of a query: count, sum, average. Pure functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from localcloud.firestore.field_paths import NAME, FieldPath, check_field_name, lookup, parse
from localcloud.firestore.messages import Value
from localcloud.grpc_server import invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

# Source: https://cloud.google.com/firestore/docs/query-data/aggregation-queries#limitations
_MAX_AGGREGATIONS = 5
_NUMBERS = ("integer_value", "double_value")
_INT64 = 1 << 63


def aggregated_fields(aggregations: Sequence[Any]) -> list[FieldPath]:
    """Return the fields of sums and averages. A document counts only if it has all of them.

    Raises:
        Refused: INVALID_ARGUMENT, not a field.
    """
    kinds = [(item, item.WhichOneof("operator")) for item in aggregations]
    paths = [parse(getattr(item, kind).field.field_path) for item, kind in kinds if kind in ("sum", "avg")]
    if NAME in paths:
        raise invalid("Aggregations are not supported for the property: __name__")
    return paths


def aggregate(aggregations: Sequence[Any], documents: Sequence[Any]) -> dict[str, Any]:
    """Return a raw `Value` for each raw `Aggregation`, by its alias.

    Args:
        aggregations: What to count, sum up or average. An alias that is not set is `field_1`, `field_2`, ...
        documents: The raw documents that match the query and have the aggregated fields.

    Raises:
        Refused: INVALID_ARGUMENT, malformed aggregations.
    """
    if not aggregations:
        raise invalid("Aggregations can not be empty.")
    if len(aggregations) > _MAX_AGGREGATIONS:
        raise invalid(f"The maximum number of aggregations in an aggregation query is {_MAX_AGGREGATIONS}.")
    aliases = _aliases([item.alias for item in aggregations])
    return {alias: _aggregate_one(item, documents) for alias, item in zip(aliases, aggregations, strict=True)}


def _aliases(given: Sequence[str]) -> list[str]:
    named = [alias for alias in given if alias]
    for position, alias in enumerate(named):
        check_field_name(alias)
        if alias in named[:position]:
            raise invalid(f"Aggregation aliases contain duplicate alias: {alias}.")
    free = (name for number in range(1, 2 * len(given) + 1) if (name := f"field_{number}") not in named)
    return [alias or next(free) for alias in given]


def _aggregate_one(item: Any, documents: Sequence[Any]) -> Any:
    kind = item.WhichOneof("operator")
    if kind is None:
        raise invalid("Operator field in Aggregation is not set.")
    if kind == "count":
        return _count(item.count, len(documents))
    path = parse(getattr(item, kind).field.field_path)
    numbers = [number for document in documents if (number := _number(document, path)) is not None]
    if kind == "sum":
        return _sum(numbers)
    return Value(double_value=_float_sum(numbers) / len(numbers)) if numbers else Value(null_value=0)


def _count(operator: Any, found: int) -> Any:
    if not operator.HasField("up_to"):
        return Value(integer_value=found)
    if operator.up_to.value < 0:
        raise invalid("The `up_to` value in a COUNT aggregation must be greater than or equal to zero.")
    return Value(integer_value=min(found, operator.up_to.value))


def _number(document: Any, path: FieldPath) -> float | None:
    value = lookup(document.fields, path)
    kind = value.WhichOneof("value_type") if value is not None else None
    return getattr(value, kind) if kind in _NUMBERS else None


def _sum(numbers: Sequence[float]) -> Any:
    """Return an integer for integers, unless it has more than 64 bits."""
    if all(isinstance(number, int) for number in numbers):
        total = sum(numbers)
        if -_INT64 <= total < _INT64:
            return Value(integer_value=int(total))
    return Value(double_value=_float_sum(numbers))


def _float_sum(numbers: Sequence[float]) -> float:
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # beyond the range of doubles, or infinities of both signs
        return sum(map(float, numbers))
