"""Publish rejected messages, with the reason, to the quarantine topic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from google.api_core.exceptions import GoogleAPICallError, InvalidArgument, RetryError, ServiceUnavailable

from daemon.subscription.quarantined import with_copies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.handling.disposition import Reject
    from daemon.subscription.publisher import Publisher

#: Pub/Sub's limits (https://cloud.google.com/pubsub/quotas#resource_limits).
MAX_ATTRIBUTES = 100
MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 1024
#: After a failure nothing is published for this time.
PAUSE_SECONDS = 5.0


class Quarantine:
    """The topic for rejected messages. Shared by all threads.

    Args:
        publisher: Publishes the messages.
        topic: The full path of the quarantine topic.
        subscription: The full path of the subscription that the messages came from.
    """

    def __init__(self, *, publisher: Publisher, topic: str, subscription: str) -> None:
        self._publisher = publisher
        self._topic = topic
        self._subscription = subscription
        self._paused_until = 0.0

    def publish(
        self, *, message_id: str, data: bytes, attributes: Mapping[str, str], rejection: Reject
    ) -> None:
        """Publish the original data and attributes with the reason; return once the message is stored.

        After a failure all calls fail for a few seconds. Otherwise a stream of bad messages could hold all
        handler threads, each waiting for the same timeout.

        Raises:
            InvalidArgument: Pub/Sub will never accept this message.
            GoogleAPICallError, RetryError: Pub/Sub refuses or is unavailable, now or a moment ago.
        """
        if time.monotonic() < self._paused_until:
            raise ServiceUnavailable("a publish to the quarantine topic failed a moment ago")
        origin = {
            "reason": rejection.reason,
            "sourceMessageId": message_id,
            "sourceSubscription": self._subscription,
        }
        original = {**with_copies(attributes), **origin}
        detail = rejection.detail.encode()[:MAX_VALUE_BYTES].decode(errors="ignore")
        candidates = ({"detail": detail, **original}, original)
        best = next((candidate for candidate in candidates if _fits(candidate)), origin)
        try:
            try:
                self._publisher.publish(self._topic, data, best)
            except InvalidArgument:
                # An original attribute that only Pub/Sub itself may set.
                self._publisher.publish(self._topic, data, origin)
        except InvalidArgument:
            raise
        except (GoogleAPICallError, RetryError):
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            raise


def _fits(attributes: Mapping[str, str]) -> bool:
    return len(attributes) <= MAX_ATTRIBUTES and all(
        len(key.encode()) <= MAX_KEY_BYTES and len(value.encode()) <= MAX_VALUE_BYTES
        for key, value in attributes.items()
    )
