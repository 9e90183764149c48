"""Messages kept for a seek to an earlier time, also after their acknowledgement."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def published(message: Any) -> float:
    """Return the publish time of a raw message in seconds since 1970."""
    return float(message.publish_time.seconds + message.publish_time.nanos / 1e9)


class History:
    """The messages of the last `retention_seconds`. Not thread-safe."""

    def __init__(self, retention_seconds: float, messages: Iterable[Any] = ()) -> None:
        self.retention_seconds = retention_seconds
        self._messages: deque[Any] = deque(messages)

    def add(self, messages: Iterable[Any]) -> None:
        """Add new messages and drop those that are too old."""
        self._messages.extend(messages)
        self._drop_old()

    def kept(self) -> list[Any]:
        """Return the messages that are not too old, in the order of publishing."""
        self._drop_old()
        return list(self._messages)

    def _drop_old(self) -> None:
        oldest = time.time() - self.retention_seconds
        while self._messages and published(self._messages[0]) < oldest:
            self._messages.popleft()


def merged(*groups: Iterable[Any]) -> list[Any]:
    """Return the messages of all groups, each once, in the order of publishing."""
    by_id = {message.message_id: message for group in groups for message in group}
    return sorted(by_id.values(), key=lambda message: (published(message), int(message.message_id)))
