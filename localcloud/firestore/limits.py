"""Check the limits of Firestore: names, sizes, nesting."""

from __future__ import annotations

import re
from typing import Any

from localcloud.firestore.field_paths import check_field_name
from localcloud.firestore.values import is_vector, kind_of, numeric_id
from localcloud.grpc_server import invalid

# Source: https://cloud.google.com/firestore/quotas#limits
MAX_DOCUMENT_BYTES = 1_048_576
MAX_VALUE_BYTES = 1_048_487
MAX_ID_BYTES = 1500
MAX_DEPTH = 20
_INT64 = 1 << 63

_TIMES = ("create_time", "update_time")
#: The tag and the length of a short field in the protobuf message.
_HEADER_BYTES = 2
_NAME = re.compile(r"(projects/[^/]+/databases/[^/]+)/documents/(.+)", re.DOTALL)
_DATABASE = re.compile(r"projects/[^/]+/databases/[^/]+")
_PARENT = re.compile(r"(projects/[^/]+/databases/[^/]+)/documents(/.+)?", re.DOTALL)
_RESERVED_ID = re.compile(r"__.*__", re.DOTALL)


def check_name(name: str, database: str) -> None:
    """Refuse a name that is not a document name of `database`.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[1] != database:
        raise invalid(f'Document name "{name}" is not in "{database}".')
    segments = match[2].split("/")
    if len(segments) % 2:
        raise invalid(f'Document name "{name}" names a collection.')
    for collection in segments[::2]:
        check_collection_id(collection)
    for segment in segments[1::2]:
        _check_id(segment, "Resource")
        if segment.startswith("__") and _RESERVED_ID.fullmatch(segment):
            _check_numeric_id(segment)


def check_database(name: str) -> None:
    """Refuse what is not `projects/P/databases/D`.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    if not _DATABASE.fullmatch(name):
        raise invalid(f'Database name "{name}" is not "projects/P/databases/D".')


def check_parent(parent: str) -> str:
    """Refuse what is neither `projects/P/databases/D/documents` nor a document; return its database.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    match = _PARENT.fullmatch(parent)
    if match is None:
        raise invalid(
            f'Document parent name "{parent}" is not "projects/P/databases/D/documents" or a document.'
        )
    if match[2]:
        check_name(parent, match[1])
    return match[1]


def check_collection_id(segment: str) -> None:
    """Refuse an id that no collection can have.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    _check_id(segment, "Collection")
    if "/" in segment:
        raise invalid(f'Collection id "{segment}" is invalid because it contains "/".')
    if segment.startswith("__") and _RESERVED_ID.fullmatch(segment):
        raise invalid(f'Collection id "{segment}" is invalid because it is reserved.')


def _check_id(segment: str, kind: str) -> None:
    if segment in ("", ".", ".."):
        raise invalid(f'{kind} id "{segment}" is invalid because it is empty or a dot path.')
    if len(segment.encode()) > MAX_ID_BYTES:
        raise invalid(f"The key path element name is longer than {MAX_ID_BYTES} bytes.")


def _check_numeric_id(segment: str) -> None:
    number = numeric_id(segment)
    if number is None:
        raise invalid(f'Resource id "{segment}" is invalid because it is reserved.')
    if not -_INT64 <= number < _INT64:
        raise invalid(f'Resource id "{segment}" is invalid because it is not a 64 bit integer.')


def check_document(document: Any) -> None:
    """Refuse a raw `Document` that is too large.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    if document_size(document) > MAX_DOCUMENT_BYTES:
        raise invalid(f"maximum entity size is {MAX_DOCUMENT_BYTES} bytes")


def document_size(document: Any) -> int:
    """Return the size of a raw `Document` in bytes, without its times, whose length differs by the moment.

    It is that of the protobuf message, which is close to Firestore's own count but not the same.
    """
    size: int = document.ByteSize()
    for name in _TIMES:
        if document.HasField(name):
            size -= _HEADER_BYTES + getattr(document, name).ByteSize()
    return size


def check_value(name: str, value: Any, depth: int = 1) -> None:
    """Refuse a raw `Value` for field `name`: too deep, too long, an array in an array, a reserved name.

    Raises:
        Refused: INVALID_ARGUMENT.
    """
    kind = kind_of(value)
    if kind == "map_value" and not is_vector(value.map_value.fields):
        if depth > MAX_DEPTH:
            raise invalid(f"Property {name} contains an invalid nested entity.")
        for key, item in value.map_value.fields.items():
            check_field_name(key)
            check_value(key, item, depth + 1)
    elif kind == "array_value":
        for item in value.array_value.values:
            if item.WhichOneof("value_type") == "array_value":
                raise invalid("Cannot convert an array value in an array value.")
            check_value(name, item, depth + 1)
    elif kind in ("string_value", "bytes_value") and value.ByteSize() > MAX_VALUE_BYTES:
        raise invalid(f'The value of property "{name}" is longer than {MAX_VALUE_BYTES} bytes.')
