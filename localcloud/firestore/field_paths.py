"""Field paths and masks: parse them, and get, set, delete and project fields by them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from localcloud.grpc_server import invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

FieldPath = tuple[str, ...]
#: In queries and masks the document's name, not a field.
NAME: FieldPath = ("__name__",)

# The two forms of a segment that the official emulator names in its error message.
_SEGMENT = re.compile(r"([a-zA-Z_][a-zA-Z_0-9]*)|`((?:[^`\\]|\\.)+)`")
_ESCAPED = re.compile(r"\\([`\\])")
_RESERVED = re.compile(r"__.*__", re.DOTALL)


@lru_cache(maxsize=65536)
def parse(text: str) -> FieldPath:
    """Return the segments of a field path such as ``steps.`a:b`.status``.

    Raises:
        Refused: INVALID_ARGUMENT, not a field path.
    """
    if not text:
        raise invalid("Invalid empty property path string.")
    segments: list[str] = []
    position = 0
    while True:
        match = _SEGMENT.match(text, position)
        if match is None:
            break
        segments.append(match[1] or _ESCAPED.sub(r"\1", match[2]))
        position = match.end()
        if position == len(text):
            return tuple(segments)
        if text[position] != ".":
            break
        position += 1
    raise invalid(
        f'Invalid property path "{text}". Unquoted paths hold letters, digits and _, others need back-quotes.'
    )


def parse_writable(text: str) -> FieldPath:
    """Parse a field path that is about to be written.

    Raises:
        Refused: INVALID_ARGUMENT, not a field path or a reserved name.
    """
    path = parse(text)
    for segment in path:
        check_field_name(segment)
    return path


def check_field_name(name: str) -> None:
    """Refuse names that no field can have: the empty one and `__x__`.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    if not name:
        raise invalid("The property name is the empty string.")
    if name.startswith("__") and _RESERVED.fullmatch(name):
        raise invalid(f"field name {name} is reserved")


def lookup(fields: Any, path: FieldPath) -> Any | None:
    """Return the raw `Value` at `path` below a map of fields, or None."""
    for segment in path[:-1]:
        # `in` first: reading a missing key of a protobuf map would create it.
        if segment not in fields or fields[segment].WhichOneof("value_type") != "map_value":
            return None
        fields = fields[segment].map_value.fields
    return fields.get(path[-1])


def assign(fields: Any, path: FieldPath, value: Any) -> None:
    """Set `path` to a copy of `value`. Create missing maps on the path and replace other values there."""
    for segment in path[:-1]:
        parent = fields[segment]
        if parent.WhichOneof("value_type") != "map_value":
            parent.map_value.SetInParent()
        fields = parent.map_value.fields
    fields[path[-1]].CopyFrom(value)


def remove(fields: Any, path: FieldPath) -> None:
    """Delete `path` if it exists."""
    for segment in path[:-1]:
        if segment not in fields or fields[segment].WhichOneof("value_type") != "map_value":
            return
        fields = fields[segment].map_value.fields
    fields.pop(path[-1], None)


def project(document: Any, paths: Iterable[FieldPath]) -> Any:
    """Return a copy of a raw `Document` with only the masked fields."""
    masked = type(document)(name=document.name)
    masked.create_time.CopyFrom(document.create_time)
    masked.update_time.CopyFrom(document.update_time)
    for path in paths:
        value = lookup(document.fields, path)
        if value is not None:
            assign(masked.fields, path, value)
    return masked
