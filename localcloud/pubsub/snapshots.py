"""Snapshots: what a subscription has not acknowledged at a moment, and all that is published since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf import timestamp_pb2

from localcloud.pubsub.history import merged
from localcloud.pubsub.messages import Snapshot
from localcloud.pubsub.unserved import UNSERVED
from localcloud.request_fields import check_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

_SERVED = frozenset(f"CreateSnapshotRequest.{field}" for field in ("name", "subscription", "labels"))
_LIFE_SECONDS = 7 * 24 * 3600


def new_snapshot(request: Any, topic: str) -> Any:
    """Return the raw `Snapshot` that a request asks for. It expires in seven days.

    Raises:
        Refused: UNIMPLEMENTED, the request sets a field that is not served.
    """
    check_fields(request, served=_SERVED, unserved=UNSERVED)
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    expires = timestamp_pb2.Timestamp(seconds=now.seconds + _LIFE_SECONDS, nanos=now.nanos)
    return Snapshot(name=request.name, topic=topic, expire_time=expires, labels=request.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveSnapshot:
    """A snapshot and the messages to which it can bring a subscription back.

    Attributes:
        described: The raw `Snapshot`.
        unacked: The messages that were not acknowledged.
        since: Those published to the topic since, in order. Its owner adds them.
    """

    described: Any
    unacked: Sequence[Any]
    since: list[Any] = field(default_factory=list)

    def messages(self) -> list[Any]:
        """Return what a subscription has to deliver after a seek to this snapshot."""
        return merged(self.unacked, self.since)

    @property
    def expired(self) -> bool:
        """Return whether its life is over."""
        now = timestamp_pb2.Timestamp()
        now.GetCurrentTime()
        return bool(self.described.expire_time.seconds <= now.seconds)
