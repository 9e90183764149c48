"""Publishes rejected messages, with the reason, for a person to look at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from google.api_core.exceptions import (
    GoogleAPICallError,
    InvalidArgument,
    RetryError,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.handling.disposition import Reject
    from daemon.subscription.publisher import Publisher

#: Pub/Sub's limits (https://cloud.google.com/pubsub/quotas#resource_limits).
MAX_ATTRIBUTES = 100
MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 1024
#: After a failure nothing is published for so long.
PAUSE_SECONDS = 5.0


class Quarantine:
    """A topic for messages nobody can work.

    Args:
        publisher: Publishes.
        topic: The topic's full path.
        subscription: The full path of the subscription the messages came from.
    """

    def __init__(self, *, publisher: Publisher, topic: str, subscription: str) -> None:
        self._publisher = publisher
        self._topic = topic
        self._subscription = subscription
        self._closed_until = 0.0

    def publish(
        self, *, message_id: str, data: bytes, attributes: Mapping[str, str], rejection: Reject
    ) -> None:
        """Publish the original data and attributes and why it was rejected; returns once it is stored.

        Raises:
            InvalidArgument: Pub/Sub will never take this one.
            GoogleAPICallError, RetryError: Pub/Sub refuses, is away, or was so a moment ago: a stream of bad
                messages must not hold all threads, each waiting for the same timeout.
        """
        if time.monotonic() < self._closed_until:
            raise ServiceUnavailable("the quarantine topic took no message a moment ago")
        try:
            self._publish(data, attributes, self._origin(message_id, rejection), rejection)
        except InvalidArgument:
            raise
        except (GoogleAPICallError, RetryError):
            self._closed_until = time.monotonic() + PAUSE_SECONDS
            raise

    def _publish(
        self, data: bytes, attributes: Mapping[str, str], origin: Mapping[str, str], rejection: Reject
    ) -> None:
        whole = {**attributes, **origin}
        detailed = {"detail": _clipped(rejection.detail), **whole}
        fitting = next((candidate for candidate in (detailed, whole) if _fits(candidate)), origin)
        try:
            self._publisher.publish(self._topic, data, fitting)
        except InvalidArgument:
            # Something in the original attributes that Pub/Sub takes from nobody but itself.
            self._publisher.publish(self._topic, data, origin)

    def _origin(self, message_id: str, rejection: Reject) -> dict[str, str]:
        return {
            "reason": rejection.reason,
            "sourceMessageId": message_id,
            "sourceSubscription": self._subscription,
        }


def _fits(attributes: Mapping[str, str]) -> bool:
    return len(attributes) <= MAX_ATTRIBUTES and all(
        len(key.encode()) <= MAX_KEY_BYTES and len(value.encode()) <= MAX_VALUE_BYTES
        for key, value in attributes.items()
    )


def _clipped(text: str) -> str:
    return text.encode()[:MAX_VALUE_BYTES].decode(errors="ignore")
