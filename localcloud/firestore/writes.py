"""Apply one write to one document: preconditions, update masks, transforms. Pure functions.

The transforms: server time, increment, maximum, minimum, array union and removal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore.field_paths import (
    assign,
    check_field_name,
    lookup,
    parse_writable,
    remove,
)
from localcloud.firestore.limits import check_document, check_name, check_value
from localcloud.firestore.messages import Document, Value, set_timestamp, to_instant
from localcloud.firestore.values import sort_key
from localcloud.grpc_server import Refused, invalid

if TYPE_CHECKING:
    from collections.abc import Callable

_MILLISECOND = 1000
_NUMBERS = ("integer_value", "double_value")


def target(write: Any) -> str:
    """Return the name of the document that a raw `Write` changes.

    Raises:
        Refused: INVALID_ARGUMENT, an empty write.
    """
    operation = write.WhichOneof("operation")
    if operation is None:
        raise invalid("empty write operation")
    if operation == "delete":
        return str(write.delete)
    return str(write.update.name if operation == "update" else write.transform.document)


def check_write(write: Any, database: str) -> None:
    """Refuse a raw `Write` with an invalid name or mask: no state of `database` could make it valid.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    check_name(target(write), database)
    if write.HasField("update_mask"):
        for text in write.update_mask.field_paths:
            parse_writable(text)


def apply(write: Any, current: Any | None, instant: int) -> tuple[Any | None, list[Any]]:
    """Return the document after `write`, and the results of its transforms.

    Args:
        write: A raw `Write`.
        current: The stored raw `Document`, never changed here; None = missing.
        instant: The commit time, microseconds since 1970.

    Returns:
        `current` itself when nothing changes (its `update_time` stays), a new document, or None when deleted.

    Raises:
        Refused: A precondition does not hold, or the write is invalid.
    """
    _check_precondition(write, current)
    operation = write.WhichOneof("operation")
    if operation == "delete":
        return None, []
    transforms = write.update_transforms if operation == "update" else write.transform.field_transforms
    if current is not None and not transforms and not _differs(write, current):
        return current, []
    draft = Document(name=target(write))
    if current is not None:
        draft.CopyFrom(current)
    if operation == "update":
        _merge(draft, write)
    results = [_transform(draft.fields, item, instant) for item in transforms]
    if transforms and draft == current:
        return current, results
    check_document(draft)
    set_timestamp(draft.update_time, instant)
    if current is None:
        set_timestamp(draft.create_time, instant)
    return draft, results


def _check_precondition(write: Any, current: Any | None) -> None:
    if not write.HasField("current_document"):
        return
    condition = write.current_document
    kind = condition.WhichOneof("condition_type")
    if kind == "exists" and condition.exists and current is None:
        raise Refused(grpc.StatusCode.NOT_FOUND, f"no entity to update: {target(write)}")
    if kind == "exists" and not condition.exists and current is not None:
        raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"entity already exists: {target(write)}")
    if kind == "update_time":
        stored = 0 if current is None else to_instant(current.update_time)
        wanted = to_instant(condition.update_time)
        if 0 < stored < wanted:
            raise invalid(f"Invalid base version, it is greater than the stored version: {target(write)}")
        if stored != wanted:
            message = f"the stored version ({stored}) does not match the required base version ({wanted})"
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, message)


def _differs(write: Any, current: Any) -> bool:
    """Return whether an update changes anything. For a mask this needs no copy."""
    written = write.update.fields
    if not write.HasField("update_mask"):
        return bool(Document(fields=written) != Document(fields=current.fields))
    paths = [parse_writable(text) for text in write.update_mask.field_paths]
    return any(lookup(written, path) != lookup(current.fields, path) for path in paths)


def _merge(draft: Any, write: Any) -> None:
    written = write.update.fields
    if not write.HasField("update_mask"):
        for name, value in written.items():
            check_field_name(name)
            check_value(name, value)
        draft.ClearField("fields")
        draft.fields.MergeFrom(written)
        return
    for path in [parse_writable(text) for text in write.update_mask.field_paths]:
        value = lookup(written, path)
        if value is None:
            remove(draft.fields, path)
        else:
            check_value(path[-1], value, len(path))
            assign(draft.fields, path, value)


def _transform(fields: Any, item: Any, instant: int) -> Any:
    """Apply one raw `FieldTransform` to a map of fields; return its result as a raw `Value`."""
    path = parse_writable(item.field_path)
    kind = item.WhichOneof("transform_type")
    if kind not in _TRANSFORMS:
        raise invalid(f"unknown transform {kind}")
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


def _arithmetic(combine: Callable[[float, float], float]) -> Callable[[Any, Any, int], tuple[Any, Any]]:
    def apply(old: Any, operand: Any, _instant: int) -> tuple[Any, Any]:
        before, given = _number(old), _number(operand)
        if given is None:
            raise invalid("the operand of a numeric transform must be a number")
        number = given if before is None else combine(before, given)
        new = Value(integer_value=number) if isinstance(number, int) else Value(double_value=number)
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
