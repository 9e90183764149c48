"""Publish quarantined messages again, each to the topic that it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api_core.exceptions import InvalidArgument

from daemon.cli.operator import operator_name
from daemon.subscription.admin import topic_of
from daemon.subscription.publisher import Publisher
from daemon.subscription.quarantined import with_operator
from worker_chart_export.backends.errors import backend_errors
from worker_chart_export.errors import BackendRefused

if TYPE_CHECKING:
    from daemon.subscription.quarantined import QuarantinedMessage


class NotReplayed(Exception):
    """This message can't be published. It stays where it is."""


class Replayer:
    """Publishes the original data and attributes of messages, and the attribute `replayedBy`.

    Args:
        topic: The full path of the topic for all messages; None = of each message's source subscription.
        subscription: The full path of the subscription whose topic is used if a message names none.
    """

    def __init__(self, *, topic: str | None, subscription: str) -> None:
        self._topic = topic
        self._subscription = subscription
        self._topics: dict[str, str | NotReplayed] = {}
        self._refusals: dict[str, NotReplayed] = {}
        self._publisher = Publisher()

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()

    def target(self, message: QuarantinedMessage) -> str:
        """Return the full path of the topic that the message goes to.

        Raises:
            NotReplayed: It is not known, or the message has no content any more.
            BackendUnavailable: Pub/Sub is unavailable.
        """
        if message.is_empty:
            raise NotReplayed("its attributes did not fit into the quarantine; use the command publish")
        if self._topic is not None:
            return self._topic
        source = message.source_subscription or self._subscription
        if source not in self._topics:
            self._topics[source] = _topic_of(source)
        found = self._topics[source]
        if isinstance(found, NotReplayed):
            raise found
        return found

    def publish(self, message: QuarantinedMessage) -> tuple[str, str]:
        """Publish the message; return the topic and the new id once it is stored.

        Raises:
            NotReplayed: The topic is not known, or Pub/Sub refuses.
            BackendUnavailable: Pub/Sub is unavailable.
        """
        topic = self.target(message)
        if topic in self._refusals:
            raise self._refusals[topic]
        try:
            with backend_errors("pubsub"):
                new_id = self._publisher.publish(
                    topic,
                    message.data,
                    with_operator(message.attributes, operator_name()),
                    ordering_key=message.ordering_key,
                )
        except BackendRefused as error:
            refusal = NotReplayed(f"topic {topic}: {error}")
            if not isinstance(error.__cause__, InvalidArgument):  # which is about this message alone
                self._refusals[topic] = refusal
            raise refusal from error
        return topic, new_id


def _topic_of(subscription: str) -> str | NotReplayed:
    try:
        return topic_of(subscription)
    except BackendRefused as error:
        return NotReplayed(
            f"the topic of its subscription {subscription} is not known: {error}. Name it: --topic"
        )
