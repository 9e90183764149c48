"""Read the settings of subscriptions and topics, and probe a subscription without pulling from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from google.api_core.exceptions import InvalidArgument, MethodNotImplemented, NotFound, PermissionDenied
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from worker_chart_export.backends.errors import READ_RETRY, backend_errors, client_errors
from worker_chart_export.errors import BackendRefused

READ_TIMEOUT_SECONDS = 5.0
PROBE_TIMEOUT_SECONDS = 10.0
#: The client's own policy would retry for a minute.
SHORT_RETRY = READ_RETRY.with_timeout(READ_TIMEOUT_SECONDS)
#: An ack id that Pub/Sub never creates.
INVALID_ACK_ID = "probe"
MIN_ACK_DEADLINE_SECONDS = 10
#: The topic that a subscription names once its own was deleted.
DELETED_TOPIC = "_deleted-topic_"
#: The values of Pub/Sub where a retry policy or a dead-letter policy names none.
DEFAULT_MINIMUM_SECONDS, DEFAULT_MAXIMUM_SECONDS = 10.0, 600.0
DEFAULT_DELIVERY_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long Pub/Sub waits before it delivers a nacked message again."""

    minimum_seconds: float
    maximum_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPolicy:
    """The topic for messages that were delivered too often."""

    topic: str
    max_delivery_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionFacts:
    """The settings of a subscription.

    Attributes:
        path: Its full name.
        topic: The full name of its topic; `_deleted-topic_` if the topic was deleted.
        ack_deadline_seconds: The time within which a delivered message must be acked.
        retry: The retry policy; None = redelivery at once.
        dead_letter: The dead-letter policy, if there is one.
        is_ordered: Messages with the same ordering key are delivered one after the other.
        is_exactly_once: An acked message is not delivered again.
        is_detached: It receives no messages any more.
        delivers_elsewhere: Pub/Sub pushes or exports its messages, so they can't be pulled.
        filter: The filter expression; empty = all messages.
        expires_after_seconds: It is deleted after this time without a subscriber. Infinity = never, None =
            not reported (emulators).
    """

    path: str
    topic: str
    ack_deadline_seconds: int
    retry: RetryPolicy | None = None
    dead_letter: DeadLetterPolicy | None = None
    is_ordered: bool = False
    is_exactly_once: bool = False
    is_detached: bool = False
    delivers_elsewhere: bool = False
    filter: str = ""
    expires_after_seconds: float | None = None

    @classmethod
    def of(cls, subscription: Any) -> Self:
        """Convert a `google.pubsub.v1.Subscription`."""
        retry = dead_letter = expires_after_seconds = None
        if "retry_policy" in subscription:
            retry = _retry(subscription.retry_policy)
        if "dead_letter_policy" in subscription:
            policy = subscription.dead_letter_policy
            dead_letter = DeadLetterPolicy(
                topic=policy.dead_letter_topic,
                max_delivery_attempts=policy.max_delivery_attempts or DEFAULT_DELIVERY_ATTEMPTS,
            )
        if "expiration_policy" in subscription:  # a policy without a time to live means never
            ttl = subscription.expiration_policy.ttl
            expires_after_seconds = ttl.total_seconds() if ttl else math.inf
        return cls(
            path=subscription.name,
            topic=subscription.topic,
            ack_deadline_seconds=subscription.ack_deadline_seconds,
            retry=retry,
            dead_letter=dead_letter,
            is_ordered=subscription.enable_message_ordering,
            is_exactly_once=subscription.enable_exactly_once_delivery,
            is_detached=subscription.detached,
            delivers_elsewhere=bool(
                subscription.push_config.push_endpoint
                or subscription.bigquery_config.table
                or subscription.cloud_storage_config.bucket
            ),
            filter=subscription.filter,
            expires_after_seconds=expires_after_seconds,
        )


def _retry(policy: Any) -> RetryPolicy:
    minimum = policy.minimum_backoff.total_seconds() if "minimum_backoff" in policy else None
    maximum = policy.maximum_backoff.total_seconds() if "maximum_backoff" in policy else None
    return RetryPolicy(
        minimum_seconds=DEFAULT_MINIMUM_SECONDS if minimum is None else minimum,
        maximum_seconds=DEFAULT_MAXIMUM_SECONDS if maximum is None else maximum,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """What this account can see of a topic.

    Attributes:
        path: Its full name.
        exists: None = this account has no permission to see it.
        subscriptions: How many there are; None = no permission, or no topic.
        may_publish: If this account may publish; None = unknown (emulators know no permissions).
    """

    path: str
    exists: bool | None
    subscriptions: int | None = None
    may_publish: bool | None = None


def subscriber_client() -> SubscriberClient:
    """Create a subscriber client.

    Raises:
        BackendRefused: There are no credentials.
    """
    with client_errors("pubsub"):
        return SubscriberClient()


def probe(client: SubscriberClient, subscription_path: str, *, ack_deadline_seconds: int) -> None:
    """Check that the subscription exists and may be consumed.

    Changes the deadline of a message that does not exist. This needs the same permission as the stream
    (`pubsub.subscriptions.consume`); to read the subscription would need one more.

    Raises:
        BackendRefused: The subscription is missing or forbidden.
        BackendUnavailable: Pub/Sub is unavailable.
    """
    with backend_errors("pubsub"):
        try:
            client.modify_ack_deadline(
                subscription=subscription_path,
                ack_ids=[INVALID_ACK_ID],
                ack_deadline_seconds=ack_deadline_seconds,
                timeout=PROBE_TIMEOUT_SECONDS,
                retry=None,
            )
        except InvalidArgument:
            return  # the subscription exists and refuses the ack id


def probe_subscription(subscription_path: str) -> None:
    """Check that a subscription may be consumed, with a client of its own; errors as `probe`."""
    with subscriber_client() as client:
        probe(client, subscription_path, ack_deadline_seconds=MIN_ACK_DEADLINE_SECONDS)


def read_subscription(subscription_path: str) -> SubscriptionFacts:
    """Read the settings of a subscription.

    Needs the permission `pubsub.subscriptions.get`, which the daemon itself does not need.

    Raises:
        BackendRefused: There are no credentials, or the subscription is missing or forbidden.
        BackendUnavailable: Pub/Sub is unavailable.
    """
    with subscriber_client() as client, backend_errors("pubsub"):
        return SubscriptionFacts.of(
            client.get_subscription(subscription=subscription_path, timeout=PROBE_TIMEOUT_SECONDS, retry=None)
        )


def topic_of(subscription_path: str) -> str:
    """Return the full path of the topic of a subscription.

    Raises:
        BackendRefused: There are no credentials, the subscription is missing or forbidden, or its topic was
            deleted.
        BackendUnavailable: Pub/Sub does not answer within 5 s.
    """
    with subscriber_client() as client, backend_errors("pubsub"):
        topic = client.get_subscription(
            subscription=subscription_path, timeout=READ_TIMEOUT_SECONDS, retry=SHORT_RETRY
        ).topic
    if topic == DELETED_TOPIC:
        raise BackendRefused("pubsub", "the topic of the subscription was deleted")
    return str(topic)


def read_topic(topic: str) -> TopicFacts:
    """Read what this account can see of a topic; publishes nothing.

    Raises:
        BackendRefused: There are no credentials, or Pub/Sub refuses.
        BackendUnavailable: Pub/Sub is unavailable.
    """
    with client_errors("pubsub"):
        client = PublisherClient()
    with client, backend_errors("pubsub"):
        exists, subscriptions = _read_subscriptions(client, topic)
        return TopicFacts(
            path=topic,
            exists=exists,
            subscriptions=subscriptions,
            may_publish=None if exists is False else _may_publish(client, topic),
        )


def _read_subscriptions(client: PublisherClient, topic: str) -> tuple[bool | None, int | None]:
    """Return if the topic exists and how many subscriptions it has; None where there is no permission."""
    try:
        client.get_topic(topic=topic, timeout=READ_TIMEOUT_SECONDS, retry=None)
    except NotFound:
        return False, None
    except PermissionDenied:
        return None, None
    try:
        pages = client.list_topic_subscriptions(topic=topic, timeout=READ_TIMEOUT_SECONDS, retry=None)
        return True, len(list(pages))
    except PermissionDenied:
        return True, None


def _may_publish(client: PublisherClient, topic: str) -> bool | None:
    """Return IAM's answer, which needs no permission. None on an emulator, which has no IAM."""
    permission = "pubsub.topics.publish"
    request = {"resource": topic, "permissions": [permission]}
    try:
        answer = client.test_iam_permissions(request=request, timeout=READ_TIMEOUT_SECONDS, retry=None)
    except MethodNotImplemented:
        return None
    return permission in answer.permissions
