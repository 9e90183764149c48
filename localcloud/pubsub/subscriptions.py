"""One subscription: its settings, its backlog under a lock, the calls that wait for messages, and streams."""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.grpc_server import Refused, invalid
from localcloud.pubsub.delivery import Backlog, Lease, RetryRules, Window
from localcloud.pubsub.messages import PubsubMessage, ReceivedMessage, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# The most messages in one response, so that several receivers share a backlog.
_MAX_BATCH = 100
_DEFAULT_MIN_BACKOFF_SECONDS = 10.0
_DEFAULT_MAX_BACKOFF_SECONDS = 600.0
_DEFAULT_MAX_DELIVERY_ATTEMPTS = 5
_DEFAULT_ACK_DEADLINE_SECONDS = 10
_DEFAULT_RETENTION_SECONDS = 7 * 24 * 3600  # reported to clients, without any effect
_ACK_DEADLINE_SECONDS = range(10, 601)
_NO_LIMIT = 1_000_000
_DELIVERY_ATTEMPTS = range(5, 101)


def retry_rules(settings: Any) -> RetryRules:
    """Return the rules of a raw `Subscription`."""
    minimum = maximum = 0.0
    if settings.HasField("retry_policy"):
        policy = settings.retry_policy
        minimum = _seconds(policy, "minimum_backoff", _DEFAULT_MIN_BACKOFF_SECONDS)
        maximum = _seconds(policy, "maximum_backoff", _DEFAULT_MAX_BACKOFF_SECONDS)
    attempts = 0
    if settings.HasField("dead_letter_policy"):
        attempts = settings.dead_letter_policy.max_delivery_attempts or _DEFAULT_MAX_DELIVERY_ATTEMPTS
    return RetryRules(
        minimum_backoff_seconds=minimum, maximum_backoff_seconds=maximum, max_delivery_attempts=attempts
    )


def _seconds(policy: Any, name: str, default: float) -> float:
    if not policy.HasField(name):
        return default
    duration = getattr(policy, name)
    return float(duration.seconds + duration.nanos / 1e9)


class LiveSubscription:
    """A subscription that stores and delivers messages. Thread-safe.

    Args:
        settings: The raw `Subscription`.
        forward: Publishes a raw message to a topic by name; used for dead letters.
    """

    def __init__(self, settings: Any, forward: Callable[[str, Any], None]) -> None:
        self.settings = settings
        self.deleted = False
        self._forward = forward
        self._changed = threading.Condition()
        self._backlog = Backlog(f"{settings.name}:{uuid.uuid4().hex[:8]}", retry_rules(settings))

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
            self._backlog.rules = retry_rules(settings)

    def add(self, messages: Iterable[Any]) -> None:
        """Add new messages."""
        with self._changed:
            for message in messages:
                self._backlog.add(message)
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

    def acknowledge(self, ack_ids: Sequence[str]) -> int:
        """Acknowledge messages; return how many of the ids were still valid."""
        self._check_ack_ids(ack_ids)
        with self._changed:
            settled = self._backlog.acknowledge(ack_ids, time.monotonic())
            self._changed.notify_all()
        self._forward_dead()
        return settled

    def modify_deadline(self, ack_ids: Sequence[str], seconds: int) -> None:
        """Change ack deadlines; 0 seconds nacks the messages."""
        self._check_ack_ids(ack_ids)
        with self._changed:
            if seconds:
                self._backlog.extend(ack_ids, time.monotonic(), seconds)
            else:
                self._backlog.nack(ack_ids, time.monotonic())
            self._changed.notify_all()
        self._forward_dead()

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
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Subscription does not exist (resource={self.name})")
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


class Stream:
    """A StreamingPull in progress.

    The limits of the first request are the stream's flow control, as in production; the official emulator
    ignores them. Messages of a closed stream are delivered again only after their deadlines.

    Args:
        subscription: The source of its messages.
        first: The raw first request.
    """

    def __init__(self, subscription: LiveSubscription, first: Any) -> None:
        self.subscription = subscription
        self.closed = False
        self.reset: Refused | None = None
        self._window = Window(first.max_outstanding_messages, first.max_outstanding_bytes)
        self._lease_seconds = _checked_deadline(first.stream_ack_deadline_seconds)

    def close(self) -> None:
        """End the stream; also called by gRPC when the client has disconnected."""
        self.closed = True
        self.subscription.wake()

    def abort(self, refused: Refused) -> None:
        """End the stream with an error."""
        self.reset = refused
        self.close()

    def read(self, requests: Iterator[Any], settle: Callable[[Any], None]) -> None:
        """Read the client's requests in a separate thread until the stream ends."""
        threading.Thread(
            target=self._follow, args=(requests, settle), name="localcloud-pubsub-stream", daemon=True
        ).start()

    def _follow(self, requests: Iterator[Any], settle: Callable[[Any], None]) -> None:
        try:
            for request in requests:
                if request.stream_ack_deadline_seconds:
                    self._lease_seconds = _checked_deadline(request.stream_ack_deadline_seconds)
                settle(request)
        except Refused as refused:
            self.abort(refused)
        except grpc.RpcError:
            pass  # raised by gRPC's request iterator when the client has disconnected
        finally:
            self.close()

    def batches(self, cancelled: Callable[[], bool]) -> Iterator[list[Any]]:
        """Yield batches of raw `ReceivedMessage`s until the stream is closed or `cancelled` returns True.

        Raises:
            Refused: The subscription was deleted, or the stream reset.
        """
        while not (self.closed or cancelled()):
            received = self.subscription.receive(
                limit=_NO_LIMIT,
                window=self._window,
                lease_seconds=self._lease_seconds,
                until=None,
                cancelled=lambda: self.closed or cancelled(),
            )
            if received:
                yield received
        if self.reset:
            raise self.reset


def _checked_deadline(seconds: int) -> int:
    if seconds not in _ACK_DEADLINE_SECONDS:
        raise invalid("the stream's ack deadline must be 10 to 600 seconds")
    return seconds


def new_settings(request: Any, topic_exists: Callable[[str], bool]) -> Any:
    """Return the settings of a new subscription, checked and with defaults filled in.

    Args:
        request: The requested raw `Subscription`.
        topic_exists: Returns whether a topic exists.

    Raises:
        Refused: NOT_FOUND for a topic, INVALID_ARGUMENT for a number out of bounds.
    """
    settings = Subscription()
    settings.CopyFrom(request)
    settings.ack_deadline_seconds = settings.ack_deadline_seconds or _DEFAULT_ACK_DEADLINE_SECONDS
    settings.push_config.SetInParent()
    if not settings.HasField("message_retention_duration"):
        settings.message_retention_duration.FromSeconds(_DEFAULT_RETENTION_SECONDS)
    check_settings(settings, topic_exists)
    return settings


def check_settings(settings: Any, topic_exists: Callable[[str], bool]) -> None:
    """Refuse settings that production refuses.

    Raises:
        Refused: NOT_FOUND for a topic, INVALID_ARGUMENT for a number out of bounds.
    """
    wanted = [settings.topic]
    if settings.HasField("dead_letter_policy"):
        wanted.append(settings.dead_letter_policy.dead_letter_topic)
    for topic in wanted:
        if not topic_exists(topic):
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Topic not found (resource={topic})")
    if settings.ack_deadline_seconds not in _ACK_DEADLINE_SECONDS:
        raise invalid("the ack deadline must be 10 to 600 seconds")
    attempts = settings.dead_letter_policy.max_delivery_attempts
    if attempts and attempts not in _DELIVERY_ATTEMPTS:
        raise Refused(grpc.StatusCode.OUT_OF_RANGE, "max_delivery_attempts must be 5 to 100")
