"""Refuse the fields of a protobuf request that the embedded cloud does not serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localcloud.grpc_server import NotServed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def check_fields(message: Any, *, served: Collection[str], unserved: Mapping[str, str]) -> None:
    """Refuse a message with a field that is not served. A new field of a later API is not served either.

    Args:
        message: A raw message. Fields with their default value count as not set.
        served: The served fields: `Message.field` with all that is below it, or `Message.field.inner` for a
            part of it.
        unserved: Not served: name -> what to use instead.

    Raises:
        Refused: UNIMPLEMENTED, it names the field.
    """
    _check(message, message.DESCRIPTOR.name, served, unserved)


def _check(message: Any, path: str, served: Collection[str], unserved: Mapping[str, str]) -> None:
    for field, value in message.ListFields():
        name = f"{path}.{field.name}"
        if name in served:
            continue
        if not any(one.startswith(f"{name}.") for one in served):
            raise NotServed(name, unserved)
        _check(value, name, served, unserved)
