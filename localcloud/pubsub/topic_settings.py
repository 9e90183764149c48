"""The settings of a topic: which are served, and their bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localcloud.grpc_server import invalid
from localcloud.pubsub.messages import Topic
from localcloud.pubsub.settings import duration_seconds
from localcloud.pubsub.unserved import UNSERVED
from localcloud.pubsub.update_masks import updated
from localcloud.request_fields import check_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVED = frozenset({"Topic.name", "Topic.labels", "Topic.message_retention_duration"})
_MUTABLE = frozenset({"labels", "message_retention_duration"})
_RETENTION_SECONDS = (600, 31 * 24 * 3600)


def new_topic(request: Any) -> Any:
    """Return the settings of a new topic, checked.

    Raises:
        Refused: UNIMPLEMENTED, a setting is not served; INVALID_ARGUMENT, a number is out of bounds.
    """
    topic = Topic()
    topic.CopyFrom(request)
    return _checked(topic)


def updated_topic(current: Any, request: Any, paths: Sequence[str]) -> Any:
    """Return the settings after an update; see `updated` and `new_topic` for the errors."""
    return _checked(updated(current, request, paths, mutable=_MUTABLE, unserved=UNSERVED))


def _checked(topic: Any) -> Any:
    check_fields(topic, served=SERVED, unserved=UNSERVED)
    shortest, longest = _RETENTION_SECONDS
    if topic.HasField("message_retention_duration") and not (
        shortest <= duration_seconds(topic.message_retention_duration) <= longest
    ):
        raise invalid(f"message_retention_duration out of bounds: a topic's is {shortest} to {longest} s")
    return topic
