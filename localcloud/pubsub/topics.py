"""The topics, subscriptions and snapshots of all projects."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.grpc_server import Refused, invalid
from localcloud.pubsub.history import History
from localcloud.pubsub.message_limits import check_message
from localcloud.pubsub.messages import PubsubMessage
from localcloud.pubsub.names import check_name, check_project, missing, taken
from localcloud.pubsub.settings import (
    DELETED_TOPIC,
    duration_seconds,
    new_subscription,
    updated_subscription,
)
from localcloud.pubsub.snapshots import LiveSnapshot, new_snapshot
from localcloud.pubsub.subscriptions import LiveSubscription
from localcloud.pubsub.topic_settings import new_topic, updated_topic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_NANOS_OF_A_SECOND = 1_000_000_000


class Topics:
    """The registry of topics, subscriptions and snapshots. Thread-safe."""

    def __init__(self) -> None:
        # While it is held, that of a subscription may be taken, never the other way round.
        self._lock = threading.RLock()
        self._topics: dict[str, Any] = {}
        self._histories: dict[str, History] = {}  # of the topics that keep messages
        self._subscriptions: dict[str, LiveSubscription] = {}
        self._snapshots: dict[str, LiveSnapshot] = {}
        # Ids start at the current time, so they stay unique over a restart that loses state.
        self._ids = itertools.count(time.time_ns() // 1000)

    def create_topic(self, request: Any) -> Any:
        """Create a topic."""
        check_name(request.name, "topics")
        with self._lock:
            if request.name in self._topics:
                raise taken(request.name, "topics")
            return self._store(new_topic(request))

    def update_topic(self, request: Any, paths: Sequence[str]) -> Any:
        """Replace the named settings of a topic."""
        with self._lock:
            return self._store(updated_topic(self.topic(request.name), request, paths))

    def _store(self, topic: Any) -> Any:
        self._topics[topic.name] = topic
        if not topic.HasField("message_retention_duration"):
            self._histories.pop(topic.name, None)
        else:
            history = self._histories.setdefault(topic.name, History(0.0))
            history.retention_seconds = duration_seconds(topic.message_retention_duration)
        return topic

    def topic(self, name: str) -> Any:
        """Return the raw `Topic`."""
        with self._lock:
            if name not in self._topics:
                raise missing(name, "topics")
            return self._topics[name]

    def delete_topic(self, name: str) -> None:
        """Delete a topic. Its subscriptions keep their messages."""
        with self._lock:
            self.topic(name)
            del self._topics[name]
            self._histories.pop(name, None)
            for subscription in self._of(name):
                subscription.settings.topic = DELETED_TOPIC

    def topics(self, project: str) -> list[Any]:
        """Return all topics of `projects/P`, by name."""
        with self._lock:
            return _of_project(self._topics, project)

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
        # The lock is held to the end, so that no snapshot misses a message that a subscription gets.
        with self._lock:
            self.topic(topic)
            for subscription in self._of(topic):
                subscription.add(batch)
            if topic in self._histories:
                self._histories[topic].add(batch)
            for snapshot in self._snapshots.values():
                if snapshot.described.topic == topic:
                    snapshot.since.extend(batch)
        return [message.message_id for message in batch]

    def create_subscription(self, request: Any) -> Any:
        """Create a subscription; it receives the messages published from now on."""
        check_name(request.name, "subscriptions")
        with self._lock:
            if request.name in self._subscriptions:
                raise taken(request.name, "subscriptions")
            settings = new_subscription(request, self._topics.__contains__)
            self._subscriptions[request.name] = LiveSubscription(settings, self._forward)
            return settings

    def update_subscription(self, request: Any, paths: Sequence[str]) -> Any:
        """Replace the named settings of a subscription."""
        with self._lock:
            subscription = self.subscription(request.name)
            exists = {*self._topics, DELETED_TOPIC}.__contains__
            settings = updated_subscription(subscription.settings, request, paths, exists)
            subscription.configure(settings)
            return settings

    def subscription(self, name: str) -> LiveSubscription:
        """Return the live subscription."""
        with self._lock:
            if name not in self._subscriptions:
                raise missing(name, "subscriptions")
            return self._subscriptions[name]

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription and end its streams."""
        with self._lock:
            subscription = self.subscription(name)
            del self._subscriptions[name]
        subscription.delete()

    def subscriptions(self, project: str) -> list[LiveSubscription]:
        """Return the subscriptions of `projects/P`, by name."""
        with self._lock:
            return _of_project(self._subscriptions, project)

    def all_subscriptions(self) -> list[LiveSubscription]:
        """Return the subscriptions of all projects."""
        with self._lock:
            return list(self._subscriptions.values())

    def subscriptions_of(self, topic: str) -> list[str]:
        """Return the names of a topic's subscriptions, sorted."""
        with self._lock:
            self.topic(topic)
            return sorted(item.name for item in self._of(topic))

    def create_snapshot(self, request: Any) -> Any:
        """Create a snapshot of a subscription."""
        check_name(request.name, "snapshots")
        with self._lock:
            subscription = self.subscription(request.subscription)
            if request.name in self._live_snapshots():
                raise taken(request.name, "snapshots")
            described = new_snapshot(request, subscription.settings.topic)
            self._snapshots[request.name] = LiveSnapshot(described=described, unacked=subscription.messages())
            return described

    def snapshot(self, name: str) -> LiveSnapshot:
        """Return the live snapshot."""
        with self._lock:
            if name not in self._live_snapshots():
                raise missing(name, "snapshots")
            return self._snapshots[name]

    def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot."""
        with self._lock:
            self.snapshot(name)
            del self._snapshots[name]

    def snapshots(self, project: str) -> list[Any]:
        """Return the raw snapshots of `projects/P`, by name."""
        with self._lock:
            return [snapshot.described for snapshot in _of_project(self._live_snapshots(), project)]

    def snapshots_of(self, topic: str) -> list[str]:
        """Return the names of a topic's snapshots, sorted."""
        check_name(topic, "topics")
        with self._lock:
            live = self._live_snapshots().items()
            return sorted(name for name, snapshot in live if snapshot.described.topic == topic)

    def _live_snapshots(self) -> dict[str, LiveSnapshot]:
        self._snapshots = {name: found for name, found in self._snapshots.items() if not found.expired}
        return self._snapshots

    def seek(self, request: Any) -> None:
        """Bring a subscription to a snapshot or to a time."""
        with self._lock:
            subscription = self.subscription(request.subscription)
            topic = subscription.settings.topic
            target = request.WhichOneof("target")
            if target == "snapshot":
                snapshot = self.snapshot(request.snapshot)
                _check_topics(topic, snapshot.described.topic)
                subscription.replace(snapshot.messages())
            elif target == "time":
                history = self._histories.get(topic)
                subscription.seek(_moment(request.time), history.kept() if history else ())
            else:
                raise invalid(
                    "No target was specified in the SeekRequest. Must specify either a time or a snapshot."
                )

    def detach(self, name: str) -> None:
        """Detach a subscription from its topic: it loses its messages and gets no more."""
        with self._lock:
            self.subscription(name).detach()

    def _of(self, topic: str) -> list[LiveSubscription]:
        return [
            item
            for item in self._subscriptions.values()
            if item.settings.topic == topic and not item.settings.detached
        ]

    def _forward(self, topic: str, message: Any) -> None:
        with self._lock:
            known = topic in self._topics
        if known:  # as in production: a dead letter is lost when its topic was deleted
            self.publish(topic, [message])


def _of_project(items: Mapping[str, Any], project: str) -> list[Any]:
    check_project(project)
    return [items[name] for name in sorted(items) if name.startswith(f"{project}/")]


def _moment(timestamp: Any) -> float:
    if not 0 <= timestamp.nanos < _NANOS_OF_A_SECOND:
        raise invalid("An invalid time was specified in the SeekRequest. See definition of Timestamp.")
    return float(timestamp.seconds + timestamp.nanos / 1e9)


def _check_topics(topic: str, of_snapshot: str) -> None:
    if topic != of_snapshot:
        raise Refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"The subscription's topic {topic} is different from that of the snapshot {of_snapshot}.",
        )
