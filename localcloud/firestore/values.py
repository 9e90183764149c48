"""The order and equality of Firestore values, as its queries define them.

Types sort null, boolean, number, timestamp, string, bytes, reference, geo point, array, vector, map.
Source: https://firebase.google.com/docs/firestore/manage-data/data-types#value_type_ordering
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from localcloud.grpc_server import invalid

if TYPE_CHECKING:
    from collections.abc import Callable

SortKey = tuple[Any, ...]

NULL_RANK = 0
NUMBER_RANK = 2
_NAN: SortKey = (NUMBER_RANK, 0, 0)
_ARRAY_RANK, _VECTOR_RANK, _MAP_RANK = 8, 9, 10
_NUMERIC_ID = re.compile(r"__id(-?[1-9][0-9]*)__")


def path_key(name: str) -> SortKey:
    """Return the sort key of a document name: by segments, numeric ids (`__id7__`) before all others.

    Strings of Python sort by code points, which is the order of their UTF-8 bytes.
    """
    database, _, path = name.partition("/documents/")
    return (database, *[_segment_key(segment) for segment in path.split("/")])


def numeric_id(segment: str) -> int | None:
    """Return the number of an id such as `__id7__`; None for every other id."""
    match = _NUMERIC_ID.fullmatch(segment) if segment.startswith("__id") else None
    return int(match[1]) if match else None


def _segment_key(segment: str) -> SortKey:
    number = numeric_id(segment)
    return (1, segment) if number is None else (0, number)


def sort_key(value: Any) -> SortKey:
    """Return the sort key of a `Value`: its type's rank, then its content. Equal values have equal keys."""
    kind = kind_of(value)
    return _KEYS[kind](getattr(value, kind)) if kind in _KEYS else (NULL_RANK,)


def kind_of(value: Any) -> str | None:
    """Return the kind of a `Value`; None = it is not set.

    Raises:
        Refused: INVALID_ARGUMENT, a kind that only a pipeline has.
    """
    kind: str | None = value.WhichOneof("value_type")
    if kind in _KEYS or kind in (None, "null_value"):
        return kind
    raise invalid(f"{kind} is only valid in a pipeline, it is no value of a document or a query.")


def is_nan(key: SortKey) -> bool:
    """Return whether a sort key is that of NaN."""
    return key == _NAN


def is_vector(fields: Any) -> bool:
    """Return whether these fields of a map stand for a vector, the one use of a reserved name."""
    if set(fields) != {"__type__", "value"} or fields["__type__"].string_value != "__vector__":
        return False
    numbers = fields["value"].array_value.values
    return all(number.WhichOneof("value_type") == "double_value" for number in numbers)


def _map(value: Any) -> SortKey:
    fields = value.fields
    if is_vector(fields):
        numbers = fields["value"].array_value.values
        return (_VECTOR_RANK, len(numbers), tuple(sort_key(item) for item in numbers))
    return (_MAP_RANK, tuple(sorted((key.encode(), sort_key(item)) for key, item in fields.items())))


def _number(number: float) -> SortKey:
    return _NAN if math.isnan(number) else (NUMBER_RANK, 1, number)


_KEYS: dict[str, Callable[[Any], SortKey]] = {
    "boolean_value": lambda value: (1, value),
    "integer_value": _number,
    "double_value": _number,
    "timestamp_value": lambda value: (3, value.seconds, value.nanos),
    "string_value": lambda value: (4, value.encode()),
    "bytes_value": lambda value: (5, value),
    "reference_value": lambda value: (6, path_key(value)),
    "geo_point_value": lambda value: (7, value.latitude, value.longitude),
    "array_value": lambda value: (_ARRAY_RANK, tuple(sort_key(item) for item in value.values)),
    "map_value": _map,
}
