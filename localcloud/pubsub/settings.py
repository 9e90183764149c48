"""The settings of a subscription: which are served, their defaults and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from localcloud.grpc_server import NotServed, Refused, invalid
from localcloud.pubsub.delivery import RetryRules
from localcloud.pubsub.filters import parse_filter
from localcloud.pubsub.messages import Subscription
from localcloud.pubsub.names import missing
from localcloud.pubsub.unserved import UNSERVED
from localcloud.pubsub.update_masks import updated
from localcloud.request_fields import check_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DELETED_TOPIC = "_deleted-topic_"

SERVED = frozenset(
    f"Subscription.{field}"
    for field in (
        "name",
        "topic",
        "ack_deadline_seconds",
        "dead_letter_policy",
        "enable_exactly_once_delivery",
        "enable_message_ordering",
        "expiration_policy",
        "filter",
        "labels",
        "message_retention_duration",
        "retain_acked_messages",
        "retry_policy",
    )
)
_MUTABLE = frozenset(
    {
        "ack_deadline_seconds",
        "dead_letter_policy",
        "enable_exactly_once_delivery",
        "expiration_policy",
        "labels",
        "message_retention_duration",
        "push_config",
        "retain_acked_messages",
        "retry_policy",
    }
)
_ACK_DEADLINE_SECONDS = range(10, 601)
_DEFAULT_ACK_DEADLINE_SECONDS = 10
_RETENTION_SECONDS = (600, 7 * 24 * 3600)
_BACKOFF_SECONDS = (0, 600)
_DEFAULT_BACKOFF_SECONDS = {"minimum_backoff": 10, "maximum_backoff": 600}
_DELIVERY_ATTEMPTS = (5, 100)


def new_subscription(request: Any, topic_exists: Callable[[str], bool]) -> Any:
    """Return the settings of a new subscription, checked and with defaults filled in.

    Args:
        request: The requested raw `Subscription`.
        topic_exists: Returns whether a topic exists.

    Raises:
        Refused: NOT_FOUND for a topic, UNIMPLEMENTED for a setting that is not served, INVALID_ARGUMENT or
            OUT_OF_RANGE for a number out of bounds or a malformed filter.
    """
    if not topic_exists(request.topic):
        raise missing(request.topic, "topics")
    settings = Subscription()
    settings.CopyFrom(request)
    settings.ClearField("push_config")
    check_fields(settings, served=SERVED, unserved=UNSERVED)
    settings.push_config.CopyFrom(request.push_config)
    return _checked(settings, topic_exists)


def updated_subscription(
    current: Any, request: Any, paths: Sequence[str], topic_exists: Callable[[str], bool]
) -> Any:
    """Return the settings after an update; see `updated` and `new_subscription` for the errors."""
    settings = updated(current, request, paths, mutable=_MUTABLE, unserved=UNSERVED)
    return _checked(settings, topic_exists)


def retry_rules(settings: Any) -> RetryRules:
    """Return the rules of a checked raw `Subscription`."""
    minimum = maximum = 0.0
    if settings.HasField("retry_policy"):
        minimum = duration_seconds(settings.retry_policy.minimum_backoff)
        maximum = duration_seconds(settings.retry_policy.maximum_backoff)
    return RetryRules(
        minimum_backoff_seconds=minimum,
        maximum_backoff_seconds=maximum,
        max_delivery_attempts=settings.dead_letter_policy.max_delivery_attempts,
    )


def duration_seconds(duration: Any) -> float:
    """Return the seconds of a raw `Duration`."""
    return float(duration.seconds + duration.nanos / 1e9)


def _checked(settings: Any, topic_exists: Callable[[str], bool]) -> Any:
    """Fill in the defaults of a raw `Subscription`, check it and return it."""
    if settings.push_config.ByteSize():  # an empty one asks for pull
        raise NotServed("Subscription.push_config", UNSERVED)
    settings.push_config.SetInParent()
    parse_filter(settings.filter)
    _check_numbers(settings)
    if settings.HasField("dead_letter_policy"):
        _check_dead_letters(settings.dead_letter_policy, topic_exists)
    if settings.HasField("retry_policy"):
        _check_backoff(settings.retry_policy)
    return settings


def _check_numbers(settings: Any) -> None:
    settings.ack_deadline_seconds = settings.ack_deadline_seconds or _DEFAULT_ACK_DEADLINE_SECONDS
    if settings.ack_deadline_seconds not in _ACK_DEADLINE_SECONDS:
        raise invalid("ack_deadline_seconds out of bounds: an ack deadline is 10 to 600 s")
    shortest, longest = _RETENTION_SECONDS
    if not settings.HasField("message_retention_duration"):
        settings.message_retention_duration.FromSeconds(longest)
    if not shortest <= duration_seconds(settings.message_retention_duration) <= longest:
        raise invalid(f"message_retention_duration out of bounds: it must be {shortest} to {longest} s")


def _check_dead_letters(policy: Any, topic_exists: Callable[[str], bool]) -> None:
    if not topic_exists(policy.dead_letter_topic):
        wrong = f"Dead letter topic not found (resource={policy.dead_letter_topic})"
        raise Refused(grpc.StatusCode.NOT_FOUND, wrong)
    least, most = _DELIVERY_ATTEMPTS
    attempts = policy.max_delivery_attempts = policy.max_delivery_attempts or least
    if not least <= attempts <= most:
        wrong = _wrong(
            "max_delivery_attempts", str(attempts), f"the value must be between {least} and {most}"
        )
        raise Refused(grpc.StatusCode.OUT_OF_RANGE, wrong)


def _check_backoff(policy: Any) -> None:
    least, most = _BACKOFF_SECONDS
    for name, default in _DEFAULT_BACKOFF_SECONDS.items():
        if not policy.HasField(name):
            getattr(policy, name).FromSeconds(default)
        value = duration_seconds(getattr(policy, name))
        if not least <= value <= most:
            raise invalid(_wrong(name, f"{value:g}s", f"the value must be between {least}s and {most}s"))
    minimum, maximum = duration_seconds(policy.minimum_backoff), duration_seconds(policy.maximum_backoff)
    if maximum < minimum:
        raise invalid(_wrong("maximum_backoff", f"{maximum:g}s", f"the minimum value is {minimum:g}s"))


def _wrong(name: str, value: str, bound: str) -> str:
    return f"The value for {name} is out of bounds. You passed {value} in the request, but {bound}."
