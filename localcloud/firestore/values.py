"""The order and equality of Firestore values, as its queries define them.

Types sort null, boolean, number, timestamp, string, bytes, reference, geo point, array, map.
Source: https://firebase.google.com/docs/firestore/manage-data/data-types#value_type_ordering
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SortKey = tuple[Any, ...]

NULL_RANK = 0
NUMBER_RANK = 2
_NAN: SortKey = (NUMBER_RANK, 0, 0)


def path_key(name: str) -> SortKey:
    """Return the sort key of a document name: segment by segment, by UTF-8 bytes."""
    return tuple(segment.encode() for segment in name.split("/"))


def sort_key(value: Any) -> SortKey:
    """Return the sort key of a `Value`: its type's rank, then its content. Equal values have equal keys."""
    kind = value.WhichOneof("value_type")
    return _KEYS[kind](getattr(value, kind)) if kind in _KEYS else (NULL_RANK,)


def is_nan(key: SortKey) -> bool:
    """Return whether a sort key is that of NaN."""
    return key == _NAN


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
    "array_value": lambda value: (8, tuple(sort_key(item) for item in value.values)),
    "map_value": lambda value: (
        9,
        tuple(sorted((key.encode(), sort_key(item)) for key, item in value.fields.items())),
    ),
}
