"""The one place that touches a Pub/Sub message: every delivery ends here in one ack, nack or deferral."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING

from google.api_core.exceptions import ClientError, GoogleAPICallError, InvalidArgument, RetryError

from daemon.handling.disposition import Ack, Defer, Nack, Reject
from worker_chart_export.backends.errors import describe_error
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import annotate
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from google.cloud.pubsub_v1.subscriber.message import Message

    from daemon.handling.disposition import Disposition
    from daemon.subscription.quarantine import Quarantine

#: The most that Pub/Sub takes for an ack deadline.
MAX_DEFER_SECONDS = 600


class Settlement:
    """Carries out dispositions.

    Args:
        quarantine: Where rejected messages go; None without a quarantine topic.
    """

    def __init__(self, quarantine: Quarantine | None) -> None:
        self._quarantine = quarantine

    def settle(self, message: Message, disposition: Disposition) -> None:
        """Ack, nack or defer the message, exactly once."""
        found = disposition
        if isinstance(disposition, Reject):
            disposition = self._reject(message, disposition)
        match disposition:
            case Ack():
                message.ack()
            case Nack():
                message.nack()
            case Defer():
                _defer(message, disposition)
        _count(disposition, of=found)
        name = type(disposition).__name__.lower()
        annotate(disposition=name, reason=disposition.reason)
        log.info(
            Event.MESSAGE_SETTLED,
            f"Settled the message: {name}",
            disposition=name,
            reason=disposition.reason,
            delaySeconds=round(disposition.delay_seconds, 3) if isinstance(disposition, Defer) else None,
        )

    def _reject(self, message: Message, rejection: Reject) -> Ack | Nack | Defer:
        if self._quarantine is None and message.delivery_attempt is None:
            return _logged_whole(message, rejection, "there is no quarantine topic and no dead-letter policy")
        log.warning(
            Event.MESSAGE_REJECTED,
            f"Rejected the message: {rejection.detail}",
            reason=rejection.reason,
            detail=rejection.detail,
        )
        if self._quarantine is None:
            # A dead-letter policy exists: it takes the message once its attempts are used up.
            return Nack(reason=rejection.reason)
        return _quarantined(self._quarantine, message, rejection)


def _count(disposition: Ack | Nack | Defer, *, of: Disposition) -> None:
    """Count what became of a message, `of` being what its handler found; a rejection once it is final."""
    reason = disposition.reason
    if isinstance(of, Reject) and reason == of.reason:
        metrics.MESSAGES_REJECTED.labels(reason).inc()
        reason = "rejected"
    metrics.MESSAGES_SETTLED.labels(type(disposition).__name__.lower(), reason).inc()


def _quarantined(quarantine: Quarantine, message: Message, rejection: Reject) -> Ack | Defer:
    """Ack once published; while that fails the message is kept and comes back."""
    try:
        quarantine.publish(
            message_id=message.message_id,
            data=message.data,
            attributes=dict(message.attributes),
            rejection=rejection,
        )
    except InvalidArgument as error:
        metrics.count_call("pubsub", "answered")
        return _logged_whole(message, rejection, f"the quarantine topic can't take it: {error.message}")
    except (GoogleAPICallError, RetryError) as error:
        refused = isinstance(error, ClientError)
        metrics.count_call("pubsub", "refused" if refused else "unavailable")
        event = Event.BACKEND_REFUSED if refused else Event.BACKEND_UNAVAILABLE
        log.error(event, f"The quarantine topic takes no message: {describe_error(error)}", backend="pubsub")
        return Defer(delay_seconds=full_jitter_seconds(low=10, high=60), reason="quarantine_unavailable")
    metrics.count_call("pubsub", "answered")
    return Ack(reason=rejection.reason)


def _logged_whole(message: Message, rejection: Reject, why: str) -> Ack:
    """The log is the last place where a person can find it."""
    log.error(
        Event.MESSAGE_REJECTED,
        f"Rejected the message: {rejection.detail}. Here it is whole, because {why}.",
        reason=rejection.reason,
        detail=rejection.detail,
        dataBase64=base64.b64encode(message.data).decode(),
        attributes=dict(message.attributes),
    )
    return Ack(reason=rejection.reason)


def _defer(message: Message, disposition: Defer) -> None:
    """A delayed nack: the deadline is set to the delay, and the client forgets the message."""
    delay = min(MAX_DEFER_SECONDS, max(1, math.ceil(disposition.delay_seconds)))
    message.modify_ack_deadline(delay)
    message.drop()
