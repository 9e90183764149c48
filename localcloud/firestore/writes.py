"""Apply one write to one document: preconditions, update masks, transforms. Pure functions."""

from __future__ import annotations

from typing import Any

import grpc

from localcloud.firestore.clock import set_timestamp, to_instant
from localcloud.firestore.field_paths import (
    FieldPath,
    assign,
    check_field_name,
    lookup,
    parse_writable,
    remove,
)
from localcloud.firestore.limits import check_document, check_name, check_value
from localcloud.firestore.messages import Document
from localcloud.firestore.transforms import transform
from localcloud.grpc_server import Refused


def target(write: Any) -> str:
    """Return the name of the document that a raw `Write` changes.

    Raises:
        Refused: INVALID_ARGUMENT, an empty write.
    """
    operation = write.WhichOneof("operation")
    if operation is None:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "empty write operation")
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
    draft = _draft(write, current)
    if operation == "update":
        _merge(draft, write)
    results = [transform(draft.fields, item, instant) for item in transforms]
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


def _draft(write: Any, current: Any | None) -> Any:
    draft = Document(name=target(write))
    if current is not None:
        draft.CopyFrom(current)
    return draft


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
        _merge_path(draft.fields, written, path)


def _merge_path(fields: Any, written: Any, path: FieldPath) -> None:
    value = lookup(written, path)
    if value is None:
        remove(fields, path)
        return
    check_value(path[-1], value, len(path))
    assign(fields, path, value)
