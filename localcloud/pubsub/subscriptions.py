"""One subscription: its settings, its backlog under a lock, and the calls that wait for messages."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.grpc_server import Refused, invalid
from localcloud.pubsub.delivery import Backlog, Lease, Window
from localcloud.pubsub.filters import parse_filter
from localcloud.pubsub.history import History, merged, published
from localcloud.pubsub.messages import PubsubMessage, ReceivedMessage, StreamingPullResponse
from localcloud.pubsub.names import missing
from localcloud.pubsub.ordering import OrderedBacklog
from localcloud.pubsub.settings import duration_seconds, retry_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# The most messages in one response, so that several receivers share a backlog.
_MAX_BATCH = 100


class LiveSubscription:
    """A subscription that stores and delivers messages. Thread-safe.

    Args:
        settings: The raw `Subscription`.
        forward: Publishes a raw message to a topic by name; used for dead letters.

    Attributes:
        settings: The raw `Subscription`.
        properties: What the responses of a stream say about it; None for an ordinary one.
        deleted: Whether it was deleted.
    """

    def __init__(self, settings: Any, forward: Callable[[str, Any], None]) -> None:
        self.settings = settings
        self.deleted = False
        self._forward = forward
        self._changed = threading.Condition()
        self._wants = parse_filter(settings.filter)
        self._history: History | None = None
        kind = OrderedBacklog if settings.enable_message_ordering else Backlog
        self._backlog = kind(f"{settings.name}:{uuid.uuid4().hex[:8]}", retry_rules(settings))
        self._follow_settings()

    @property
    def name(self) -> str:
        """Return the full name."""
        return str(self.settings.name)

    @property
    def unacked(self) -> int:
        """Return the number of unacknowledged messages: ready, delayed or leased."""
        with self._changed:
            self._backlog.advance(time.monotonic())
            count = len(self._backlog)
        self._forward_dead()
        return count

    @property
    def leased(self) -> int:
        """Return the number of messages delivered and neither settled nor expired."""
        with self._changed:
            self._backlog.advance(time.monotonic())
            return self._backlog.leased

    def configure(self, settings: Any) -> None:
        """Replace the settings. Messages in delivery follow the new rules from now on."""
        with self._changed:
            self.settings = settings
            self._follow_settings()

    def _follow_settings(self) -> None:
        self.properties = _properties(self.settings)
        retention = duration_seconds(self.settings.message_retention_duration)
        self._backlog.rules = retry_rules(self.settings)
        self._backlog.retention_seconds = retention
        if not self.settings.retain_acked_messages:
            self._history = None
        elif self._history is None:
            self._history = History(retention, merged(self._backlog.messages()))
        else:
            self._history.retention_seconds = retention

    def add(self, messages: Iterable[Any]) -> None:
        """Add new messages. Those that the filter does not match count as acknowledged."""
        if self._wants:
            messages = [message for message in messages if self._wants(message.attributes)]
        with self._changed:
            now = time.monotonic()
            for message in messages:
                self._backlog.add(message, now)
            if self._history:
                self._history.add(messages)
            self._changed.notify_all()

    def messages(self) -> list[Any]:
        """Return the unacknowledged raw messages in the order of publishing."""
        with self._changed:
            self._backlog.advance(time.monotonic())
            return merged(self._backlog.messages())

    def seek(self, moment: float, of_topic: Iterable[Any]) -> None:
        """Deliver exactly the messages published since a moment, as far as they are kept.

        Args:
            moment: The publish time in seconds since 1970.
            of_topic: The messages that the topic keeps.
        """
        with self._changed:
            kept = merged(self._backlog.messages(), self._history.kept() if self._history else (), of_topic)
            self._replace([message for message in kept if published(message) >= moment])

    def replace(self, messages: Iterable[Any]) -> None:
        """Deliver exactly these messages, and end all leases."""
        with self._changed:
            self._replace(messages)

    def _replace(self, messages: Iterable[Any]) -> None:
        self._backlog.clear()
        # Their retention began when they were published.
        began = time.monotonic() - time.time()
        for message in messages:
            if not self._wants or self._wants(message.attributes):
                self._backlog.add(message, began + published(message))
        self._changed.notify_all()

    def detach(self) -> None:
        """Drop all messages, and end all waiting calls with FAILED_PRECONDITION."""
        with self._changed:
            self.settings.detached = True
            self._backlog.clear()
            self._changed.notify_all()

    def delete(self) -> None:
        """End all waiting calls with NOT_FOUND."""
        with self._changed:
            self.deleted = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Wake up all waiting calls."""
        with self._changed:
            self._changed.notify_all()

    def acknowledge(self, ack_ids: Sequence[str]) -> list[str]:
        """Acknowledge messages; return the ids that were not valid any more."""
        self._check_ack_ids(ack_ids)
        with self._changed:
            invalid_ids = self._backlog.acknowledge(ack_ids, time.monotonic())
            self._changed.notify_all()
        self._forward_dead()
        return invalid_ids

    def modify_deadline(self, ack_ids: Sequence[str], seconds: int) -> list[str]:
        """Change ack deadlines; 0 seconds nacks the messages. Return the ids that were not valid any more."""
        self._check_ack_ids(ack_ids)
        with self._changed:
            if seconds:
                invalid_ids = self._backlog.extend(ack_ids, time.monotonic(), seconds)
            else:
                invalid_ids = self._backlog.nack(ack_ids, time.monotonic())
            self._changed.notify_all()
        self._forward_dead()
        return invalid_ids

    def receive(
        self,
        *,
        limit: int,
        window: Window,
        lease_seconds: float | None,
        until: float | None,
        cancelled: Callable[[], bool],
    ) -> list[Any]:
        """Wait for messages and lease them.

        Args:
            limit: The most messages to return.
            window: The receiver's flow control.
            lease_seconds: The ack deadline; None = the subscription's own.
            until: The end of the wait, on the monotonic clock; None = no end.
            cancelled: Called on every change; True ends the wait.

        Returns:
            Raw `ReceivedMessage`s; an empty list when the wait ended without one.

        Raises:
            Refused: NOT_FOUND, the subscription was deleted.
        """
        seconds = float(self.settings.ack_deadline_seconds) if lease_seconds is None else lease_seconds
        while True:
            with self._changed:
                leases = self._wait_once(min(limit, _MAX_BATCH), window, seconds, until, cancelled)
            self._forward_dead()
            if leases is not None:
                # As in production: without a dead-letter policy the attempt is not sent.
                counted = self.settings.HasField("dead_letter_policy")
                return [
                    ReceivedMessage(
                        ack_id=lease.ack_id,
                        message=lease.delivery.message,
                        delivery_attempt=lease.delivery.attempts if counted else 0,
                    )
                    for lease in leases
                ]

    def _wait_once(
        self, limit: int, window: Window, seconds: float, until: float | None, cancelled: Callable[[], bool]
    ) -> list[Lease] | None:
        if self.deleted:
            raise missing(self.name, "subscriptions")
        if self.settings.detached:
            message = f"Subscription is detached from its topic (resource={self.name})"
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, message)
        if cancelled():
            return []
        now = time.monotonic()
        leases = self._backlog.take(now, limit=limit, lease_seconds=seconds, window=window)
        if leases or (until is not None and now >= until):
            return leases
        if not self._backlog.dead:
            moments = [moment for moment in (until, self._backlog.next_change()) if moment is not None]
            self._changed.wait(min(moments) - now if moments else None)
        return None

    def _check_ack_ids(self, ack_ids: Iterable[str]) -> None:
        for ack_id in ack_ids:
            if not ack_id.startswith(f"{self.name}:"):
                raise invalid(f"Invalid ack id (ack_id={ack_id})")

    def _forward_dead(self) -> None:
        with self._changed:
            dead, self._backlog.dead = self._backlog.dead, []
        for delivery in dead:
            self._forward(self.settings.dead_letter_policy.dead_letter_topic, self._dead_letter(delivery))

    def _dead_letter(self, delivery: Any) -> Any:
        message = PubsubMessage()
        message.CopyFrom(delivery.message)
        _, project, _, subscription = self.name.split("/")
        message.attributes.update(
            {
                "CloudPubSubDeadLetterSourceSubscription": subscription,
                "CloudPubSubDeadLetterSourceSubscriptionProject": project,
                "CloudPubSubDeadLetterSourceDeliveryCount": str(delivery.attempts),
                "CloudPubSubDeadLetterSourceTopicPublishTime": message.publish_time.ToJsonString(),
            }
        )
        return message


def _properties(settings: Any) -> Any:
    exactly_once, ordering = settings.enable_exactly_once_delivery, settings.enable_message_ordering
    if not (exactly_once or ordering):
        return None
    return StreamingPullResponse.SubscriptionProperties(
        exactly_once_delivery_enabled=exactly_once, message_ordering_enabled=ordering
    )
