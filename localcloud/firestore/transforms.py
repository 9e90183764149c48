"""Field transforms: server time, increment, maximum, minimum, array union and removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore.clock import set_timestamp
from localcloud.firestore.field_paths import assign, lookup, parse_writable
from localcloud.firestore.messages import Value
from localcloud.firestore.values import sort_key
from localcloud.grpc_server import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

_MILLISECOND = 1000
_NUMBERS = ("integer_value", "double_value")


def transform(fields: Any, item: Any, instant: int) -> Any:
    """Apply one raw `FieldTransform` to a map of fields; return its result as a raw `Value`.

    Raises:
        Refused: INVALID_ARGUMENT, an unknown transform or field path.
    """
    path = parse_writable(item.field_path)
    kind = item.WhichOneof("transform_type")
    if kind not in _TRANSFORMS:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"unknown transform {kind}")
    old = lookup(fields, path)
    stored, result = _TRANSFORMS[kind](old, getattr(item, kind), instant)
    assign(fields, path, stored)
    return result


def _server_time(_old: Any, _operand: Any, instant: int) -> tuple[Any, Any]:
    # The official emulator writes milliseconds, the same for the whole commit, and not the update time.
    now = Value()
    set_timestamp(now.timestamp_value, instant - instant % _MILLISECOND)
    return now, now


def _number(value: Any | None) -> float | None:
    kind = value.WhichOneof("value_type") if value is not None else None
    return getattr(value, kind) if kind in _NUMBERS else None


def _as_value(number: float) -> Any:
    return Value(integer_value=number) if isinstance(number, int) else Value(double_value=number)


def _arithmetic(combine: Callable[[float, float], float]) -> Callable[[Any, Any, int], tuple[Any, Any]]:
    def apply(old: Any, operand: Any, _instant: int) -> tuple[Any, Any]:
        before, given = _number(old), _number(operand)
        if given is None:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT, "the operand of a numeric transform must be a number"
            )
        new = _as_value(given if before is None else combine(before, given))
        return new, new

    return apply


def _items(old: Any | None) -> list[Any]:
    return list(old.array_value.values) if old is not None and old.HasField("array_value") else []


def _array(items: list[Any]) -> tuple[Any, Any]:
    array = Value()
    array.array_value.SetInParent()
    array.array_value.values.extend(items)
    return array, Value(null_value=0)


def _union(old: Any, operand: Any, _instant: int) -> tuple[Any, Any]:
    items = _items(old)
    known = {sort_key(item) for item in items}
    for value in operand.values:
        if sort_key(value) not in known:
            known.add(sort_key(value))
            items.append(value)
    return _array(items)


def _removal(old: Any, operand: Any, _instant: int) -> tuple[Any, Any]:
    unwanted = {sort_key(value) for value in operand.values}
    return _array([item for item in _items(old) if sort_key(item) not in unwanted])


_TRANSFORMS: dict[str, Callable[[Any, Any, int], tuple[Any, Any]]] = {
    "set_to_server_value": _server_time,
    "increment": _arithmetic(lambda before, given: before + given),
    "maximum": _arithmetic(max),
    "minimum": _arithmetic(min),
    "append_missing_elements": _union,
    "remove_all_from_array": _removal,
}
