"""A subscription's settings, as told by Pub/Sub. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

#: What Pub/Sub uses where a retry policy leaves a bound out.
DEFAULT_MINIMUM_SECONDS, DEFAULT_MAXIMUM_SECONDS = 10.0, 600.0
DEFAULT_DELIVERY_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long a message that was given back waits."""

    minimum_seconds: float
    maximum_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPolicy:
    """Where a message goes that was delivered too often."""

    topic: str
    max_delivery_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionFacts:
    """What a subscription does with its messages.

    Attributes:
        path: Its full name.
        topic: The topic's full name; `_deleted-topic_` when it was deleted.
        ack_deadline_seconds: How long whoever got a message has to ack it.
        retry: None = at once.
        dead_letter: None = never.
        is_ordered: Messages of one ordering key come one after the other.
        is_exactly_once: An acked message does not come again.
        is_detached: It gets no messages any more.
        delivers_elsewhere: Pub/Sub pushes or exports the messages, so that none can be pulled.
        filter: Which messages it gets; empty = all.
        expires_after_seconds: It is deleted after so long without a subscriber; infinity = never, None =
            not told (emulators).
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
    def of(cls, told: Any) -> Self:
        """What `google.pubsub.v1.Subscription`, as the client gives it, says."""
        return cls(
            path=told.name,
            topic=told.topic,
            ack_deadline_seconds=told.ack_deadline_seconds,
            retry=_retry(told.retry_policy) if "retry_policy" in told else None,
            dead_letter=_dead_letter(told.dead_letter_policy) if "dead_letter_policy" in told else None,
            is_ordered=told.enable_message_ordering,
            is_exactly_once=told.enable_exactly_once_delivery,
            is_detached=told.detached,
            delivers_elsewhere=bool(
                told.push_config.push_endpoint
                or told.bigquery_config.table
                or told.cloud_storage_config.bucket
            ),
            filter=told.filter,
            expires_after_seconds=_expiration(told.expiration_policy)
            if "expiration_policy" in told
            else None,
        )


def _retry(policy: Any) -> RetryPolicy:
    minimum = policy.minimum_backoff.total_seconds() if "minimum_backoff" in policy else None
    maximum = policy.maximum_backoff.total_seconds() if "maximum_backoff" in policy else None
    return RetryPolicy(
        minimum_seconds=DEFAULT_MINIMUM_SECONDS if minimum is None else minimum,
        maximum_seconds=DEFAULT_MAXIMUM_SECONDS if maximum is None else maximum,
    )


def _dead_letter(policy: Any) -> DeadLetterPolicy:
    return DeadLetterPolicy(
        topic=policy.dead_letter_topic,
        max_delivery_attempts=policy.max_delivery_attempts or DEFAULT_DELIVERY_ATTEMPTS,
    )


def _expiration(policy: Any) -> float:
    """A policy without a time to live means never."""
    return policy.ttl.total_seconds() if policy.ttl else math.inf
