"""The topics and subscriptions of all projects, and the limits of a publisher."""

from __future__ import annotations

import itertools
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.grpc_server import Refused, invalid
from localcloud.pubsub.messages import PubsubMessage, Topic
from localcloud.pubsub.subscriptions import LiveSubscription, check_settings, new_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

# Source: https://cloud.google.com/pubsub/quotas#resource_limits
MAX_ATTRIBUTES = 100
MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 1024
MAX_MESSAGE_BYTES = 10_000_000
DELETED_TOPIC = "_deleted-topic_"

_ID = re.compile(r"projects/[^/]+/(topics|subscriptions)/(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")


def check_name(name: str, kind: str) -> None:
    """Refuse a name that is not `projects/P/{kind}/ID` with an id of 3 to 255 allowed characters."""
    match = _ID.fullmatch(name)
    if match is None or match[1] != kind:
        raise invalid(f"Invalid [{kind}] name: (name={name})")


def check_message(message: Any) -> None:
    """Refuse an empty or too large message, as production does."""
    if not message.data and not message.attributes:
        raise invalid("Some messages in the request are empty: one needs data or an attribute.")
    if len(message.attributes) > MAX_ATTRIBUTES:
        raise invalid(f"A message may have at most {MAX_ATTRIBUTES} attributes.")
    for key, value in message.attributes.items():
        if not key or len(key.encode()) > MAX_KEY_BYTES or len(value.encode()) > MAX_VALUE_BYTES:
            raise invalid("An attribute's key holds 1 to 256 bytes, its value at most 1024.")
    if message.ByteSize() > MAX_MESSAGE_BYTES:
        raise invalid(f"A message may have at most {MAX_MESSAGE_BYTES} bytes.")


class Topics:
    """The registry of topics and subscriptions. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._topics: dict[str, Any] = {}
        self._subscriptions: dict[str, LiveSubscription] = {}
        # Ids start at the current time, so they stay unique over a restart that loses state.
        self._ids = itertools.count(time.time_ns() // 1000)

    def create_topic(self, request: Any) -> Any:
        """Create a topic."""
        check_name(request.name, "topics")
        with self._lock:
            if request.name in self._topics:
                raise Refused(
                    grpc.StatusCode.ALREADY_EXISTS, f"Topic already exists (resource={request.name})"
                )
            topic = Topic()
            topic.CopyFrom(request)
            self._topics[request.name] = topic
            return topic

    def topic(self, name: str) -> Any:
        """Return the raw `Topic`."""
        with self._lock:
            if name not in self._topics:
                raise Refused(grpc.StatusCode.NOT_FOUND, f"Topic not found (resource={name})")
            return self._topics[name]

    def delete_topic(self, name: str) -> None:
        """Delete a topic. Its subscriptions keep their messages."""
        with self._lock:
            self.topic(name)
            del self._topics[name]
            for subscription in self._of(name):
                subscription.settings.topic = DELETED_TOPIC

    def topics(self, project: str) -> list[Any]:
        """Return all topics of `projects/P`, by name."""
        with self._lock:
            return [self._topics[name] for name in sorted(self._topics) if name.startswith(f"{project}/")]

    def publish(self, topic: str, messages: Sequence[Any]) -> list[str]:
        """Add messages to every subscription of a topic; return their new ids."""
        batch = []
        if not messages:
            raise invalid("No messages to publish")
        for message in messages:
            check_message(message)
            sent = PubsubMessage()
            sent.CopyFrom(message)
            sent.message_id = str(next(self._ids))
            sent.publish_time.GetCurrentTime()
            batch.append(sent)
        with self._lock:
            self.topic(topic)
            subscriptions = self._of(topic)
        for subscription in subscriptions:
            subscription.add(batch)
        return [message.message_id for message in batch]

    def create_subscription(self, request: Any) -> Any:
        """Create a subscription; it receives the messages published from now on."""
        check_name(request.name, "subscriptions")
        with self._lock:
            if request.name in self._subscriptions:
                message = f"Subscription already exists (resource={request.name})"
                raise Refused(grpc.StatusCode.ALREADY_EXISTS, message)
            settings = new_settings(request, self._topics.__contains__)
            self._subscriptions[request.name] = LiveSubscription(settings, self._forward)
            return settings

    def update_subscription(self, request: Any, fields: Sequence[str]) -> Any:
        """Replace the named fields of a subscription."""
        with self._lock:
            subscription = self.subscription(request.name)
            settings = type(request)()
            settings.CopyFrom(subscription.settings)
            for name in fields:
                if name.split(".")[0] not in settings.DESCRIPTOR.fields_by_name or name in ("name", "topic"):
                    raise invalid(f"Invalid update_mask provided in the request (field={name})")
                settings.ClearField(name.split(".")[0])
            _merge(settings, request, fields)
            check_settings(settings, {*self._topics, DELETED_TOPIC}.__contains__)
            subscription.configure(settings)
            return settings

    def subscription(self, name: str) -> LiveSubscription:
        """Return the live subscription."""
        with self._lock:
            if name not in self._subscriptions:
                raise Refused(grpc.StatusCode.NOT_FOUND, f"Subscription does not exist (resource={name})")
            return self._subscriptions[name]

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription and end its streams."""
        with self._lock:
            subscription = self.subscription(name)
            del self._subscriptions[name]
        subscription.delete()

    def subscriptions(self, project: str = "") -> list[LiveSubscription]:
        """Return all subscriptions, or those of `projects/P`, by name."""
        with self._lock:
            return [
                self._subscriptions[name] for name in sorted(self._subscriptions) if name.startswith(project)
            ]

    def of_topic(self, name: str) -> list[LiveSubscription]:
        """Return the subscriptions of a topic."""
        with self._lock:
            self.topic(name)
            return self._of(name)

    def _of(self, topic: str) -> list[LiveSubscription]:
        return [item for item in self._subscriptions.values() if item.settings.topic == topic]

    def _forward(self, topic: str, message: Any) -> None:
        with self._lock:
            known = topic in self._topics
        if known:  # as in production: a dead letter is lost when its topic was deleted
            self.publish(topic, [message])


def _merge(settings: Any, request: Any, fields: Sequence[str]) -> None:
    wanted = type(request)()
    wanted.CopyFrom(request)
    for descriptor in list(wanted.DESCRIPTOR.fields):
        if descriptor.name not in {name.split(".")[0] for name in fields}:
            wanted.ClearField(descriptor.name)
    settings.MergeFrom(wanted)
