"""The attributes of quarantined messages and of dead letters: what was added to the original. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Self

from daemon.handling.messages import Irrelevant, MessageRejected, parse_message
from worker_chart_export.errors import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

#: The attributes that the quarantine adds.
ADDED = ("reason", "detail", "sourceMessageId", "sourceSubscription")
#: Before the name of a copy of an original attribute that has one of these names.
COPY = "original."
#: The attributes that Pub/Sub adds to dead letters
#: (https://cloud.google.com/pubsub/docs/handling-failures#track-delivery-attempts).
DEAD_LETTER = "CloudPubSubDeadLetterSource"
#: The attribute of a message that was sent again: the operator (user@host) who did so.
REPLAYED_BY = "replayedBy"
#: https://cloud.google.com/pubsub/quotas#resource_limits
MAX_ATTRIBUTES = 100
MAX_OPERATOR_CHARS = 128
SUBSCRIPTION_PATH = re.compile(r"projects/[^/]+/subscriptions/[^/]+")


def with_copies(attributes: Mapping[str, str]) -> dict[str, str]:
    """Add copies of those original attributes that an added one may replace."""
    copies = {f"{COPY}{name}": value for name, value in attributes.items() if name in ADDED}
    return {**attributes, **copies}


def with_operator(attributes: Mapping[str, str], operator: str) -> dict[str, str]:
    """Add who sends the message again, unless there are as many attributes as a message can have."""
    named = {**attributes, REPLAYED_BY: operator}
    return named if len(named) <= MAX_ATTRIBUTES else dict(attributes)


def replayed_by(attributes: Mapping[str, str]) -> str | None:
    """Return the operator who sent the message again, for log lines; None = it is the original."""
    operator = attributes.get(REPLAYED_BY)
    return visible(operator)[:MAX_OPERATOR_CHARS] if operator else None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedMessage:
    """A message of the quarantine, or a dead letter.

    Attributes:
        message_id: Its id in this subscription.
        publish_time: When it was put there.
        reason: Why it was rejected; None for a dead letter.
        detail: The same as a sentence; None for a dead letter, or if it did not fit.
        source_message_id: The id of the original message; None for a dead letter.
        source_subscription: The full path of the subscription that delivered the original; None = not named.
        deliveries: How often a dead letter was delivered; None for a quarantined message.
        data: The original data.
        attributes: The original attributes.
        ordering_key: The original ordering key of a dead letter; empty = none.
        run_id: The run that the original names; None if it can't be understood.
        step_id: The step that the original names, if it names one.
    """

    message_id: str
    publish_time: datetime
    reason: str | None
    detail: str | None
    source_message_id: str | None
    source_subscription: str | None
    deliveries: int | None
    data: bytes
    attributes: Mapping[str, str]
    ordering_key: str
    run_id: str | None
    step_id: str | None

    @classmethod
    def of(cls, message: Any) -> Self:
        """Convert a `PubsubMessage` of the wire format: Google's own class needs ten times as long."""
        stored = dict(message.attributes)
        is_quarantined = "sourceMessageId" in stored and "sourceSubscription" in stored
        added = {name: stored.get(name) for name in ADDED} if is_quarantined else dict.fromkeys(ADDED)
        source = added["sourceSubscription"] or _dead_letter_source(stored)
        deliveries = stored.get(f"{DEAD_LETTER}DeliveryCount", "")
        attributes = _original(stored, is_quarantined=is_quarantined)
        run_id, step_id = _named_step(message.data, attributes)
        return cls(
            message_id=message.message_id,
            publish_time=message.publish_time.ToDatetime(tzinfo=UTC),
            reason=added["reason"],
            detail=added["detail"],
            source_message_id=added["sourceMessageId"],
            source_subscription=source if source and SUBSCRIPTION_PATH.fullmatch(source) else None,
            deliveries=int(deliveries) if re.fullmatch(r"[0-9]{1,9}", deliveries) else None,
            data=message.data,
            attributes=attributes,
            ordering_key=message.ordering_key,
            run_id=run_id,
            step_id=step_id,
        )

    @property
    def is_empty(self) -> bool:
        """Neither data nor attributes are left: the original attributes did not fit into the quarantine."""
        return not self.data and not self.attributes


def _original(stored: Mapping[str, str], *, is_quarantined: bool) -> dict[str, str]:
    attributes = {name: value for name, value in stored.items() if not name.startswith(DEAD_LETTER)}
    if not is_quarantined:
        return attributes
    copies = {COPY + name: name for name in ADDED}
    return {copies.get(name, name): value for name, value in attributes.items() if name not in ADDED}


def _dead_letter_source(stored: Mapping[str, str]) -> str | None:
    project = stored.get(f"{DEAD_LETTER}SubscriptionProject")
    subscription = stored.get(f"{DEAD_LETTER}Subscription")
    return f"projects/{project}/subscriptions/{subscription}" if project and subscription else None


def _named_step(data: bytes, attributes: Mapping[str, str]) -> tuple[str | None, str | None]:
    try:
        named = parse_message(data, attributes)
    except MessageRejected:
        return None, None
    return (None, None) if isinstance(named, Irrelevant) else (named.run_id, named.step_id)
