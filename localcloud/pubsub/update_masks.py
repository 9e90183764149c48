"""Apply the update mask of UpdateTopic and UpdateSubscription."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localcloud.grpc_server import NotServed, invalid

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


def updated(
    current: Any, request: Any, paths: Sequence[str], *, mutable: Collection[str], unserved: Mapping[str, str]
) -> Any:
    """Return a copy of a raw message in which the fields of the mask have the values of the request.

    Args:
        current: The raw message.
        request: The raw message with the new values.
        paths: The paths of the mask; each names a whole field.
        mutable: The fields that can be changed.
        unserved: `Message.field` that is not served -> what to use instead.

    Raises:
        Refused: INVALID_ARGUMENT, the mask is empty or names a field that is unknown or can't be changed;
            UNIMPLEMENTED, a field is not served.
    """
    kind = current.DESCRIPTOR.name
    if not paths:
        start = f"The update_mask in the Update{kind}Request must be set"
        raise invalid(f"{start}, and must contain a non-empty paths list.")
    for path in paths:
        _check_path(path, current.DESCRIPTOR, mutable, unserved)
    result, wanted = type(current)(), type(current)()
    result.CopyFrom(current)
    wanted.CopyFrom(request)
    for field in current.DESCRIPTOR.fields:
        (result if field.name in paths else wanted).ClearField(field.name)
    result.MergeFrom(wanted)
    return result


def _check_path(path: str, descriptor: Any, mutable: Collection[str], unserved: Mapping[str, str]) -> None:
    if path in mutable:
        return
    field, kind = f"{descriptor.name}.{path}", descriptor.name
    if field in unserved:
        raise NotServed(field, unserved)
    start = f"Invalid update_mask provided in the Update{kind}Request:"
    if path in descriptor.fields_by_name:
        raise invalid(f"{start} the {path} field in the {kind} is not mutable.")
    hint = "Note that field paths must be of the form 'push_config' rather than 'pushConfig'."
    raise invalid(f"{start} {path} is not a known {kind} field. {hint}")
