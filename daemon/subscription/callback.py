"""The callback of the stream: handle one delivery, then settle its message with one ack, nack or deferral.

No other file settles a message.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING

from google.api_core.exceptions import ClientError, GoogleAPICallError, InvalidArgument, RetryError

from daemon.handling.disposition import MAX_DEFER_SECONDS, Ack, Defer, Nack, Reject
from daemon.handling.messages import IncomingMessage
from daemon.subscription.quarantined import replayed_by
from worker_chart_export.backends.errors import describe_error
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.observability.observers import Stage, annotate, stage
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from google.cloud.pubsub_v1.subscriber.message import Message

    from daemon.handling.disposition import Disposition
    from daemon.handling.handler import MessageHandler
    from daemon.lifecycle.drain import Drain
    from daemon.subscription.quarantine import Quarantine


class Delivery:
    """Handles and settles messages. Shared by all handler threads; never raises."""

    def __init__(self, *, handler: MessageHandler, settlement: Settlement, drain: Drain) -> None:
        self._handler = handler
        self._settlement = settlement
        self._drain = drain

    def __call__(self, message: Message) -> None:
        """Handle and settle one delivery."""
        metrics.MESSAGES_RECEIVED.inc()
        attempt = message.delivery_attempt  # None without a dead-letter policy
        about: dict[str, str | int] = {"messageId": message.message_id}
        if attempt is not None:
            about["deliveryAttempt"] = attempt
        with (
            self._drain.delivery(),
            bound(messageId=message.message_id, replayedBy=replayed_by(message.attributes)),
            stage(Stage.DELIVERY, carrier=message.attributes, **about),
        ):
            try:
                incoming = IncomingMessage(
                    message_id=message.message_id,
                    data=message.data,
                    attributes=dict(message.attributes),
                    publish_time=message.publish_time,
                    delivery_attempt=attempt,
                )
                self._settlement.settle(message, self._handler.handle(incoming))
            except BaseException as error:  # noqa: BLE001 - see below
                # An error that leaves the callback nacks the message and ends the stream's future, while
                # messages still arrive. So the message is dropped: Pub/Sub redelivers it after its deadline.
                log.error(Event.INTERNAL_ERROR, f"Settling failed: {error!r:.300}", exc_info=error)
                metrics.MESSAGES_SETTLED.labels("drop", "internal_error").inc()
                annotate(disposition="drop", reason="internal_error", detail="settling it failed")
                message.drop()


class Settlement:
    """Carries out dispositions. Shared by all handler threads.

    Args:
        quarantine: Publishes rejected messages; None without a quarantine topic.
    """

    def __init__(self, quarantine: Quarantine | None) -> None:
        self._quarantine = quarantine

    def settle(self, message: Message, disposition: Disposition) -> None:
        """Ack, nack or defer the message, exactly once."""
        metric_reason, delay_seconds = disposition.reason, None
        about: dict[str, str | int] = {}
        if isinstance(disposition, Reject):
            rejection, disposition = disposition, self._reject(message, disposition)
            if disposition.reason == rejection.reason:  # else the message is kept, to be rejected later
                metrics.MESSAGES_REJECTED.labels(rejection.reason).inc()
                metric_reason = "rejected"
                about = {"rejected": True, "detail": rejection.detail}
            else:
                metric_reason = disposition.reason
        match disposition:
            case Ack():
                message.ack()
            case Nack():
                message.nack()
            case Defer():
                # A delayed nack: the deadline becomes the delay, and the client drops the message.
                delay_seconds = round(disposition.delay_seconds, 3)
                message.modify_ack_deadline(
                    min(MAX_DEFER_SECONDS, max(1, math.ceil(disposition.delay_seconds)))
                )
                message.drop()
                about = {"detail": disposition.detail, "delaySeconds": math.ceil(delay_seconds)}
        name = type(disposition).__name__.lower()
        metrics.MESSAGES_SETTLED.labels(name, metric_reason).inc()
        annotate(disposition=name, reason=disposition.reason, **about)
        log.info(
            Event.MESSAGE_SETTLED,
            f"Settled the message: {name}",
            disposition=name,
            reason=disposition.reason,
            delaySeconds=delay_seconds,
        )

    def _reject(self, message: Message, rejection: Reject) -> Ack | Nack | Defer:
        if self._quarantine is None and message.delivery_attempt is None:
            return _log_in_full(message, rejection, "there is no quarantine topic and no dead-letter policy")
        log.warning(
            Event.MESSAGE_REJECTED,
            f"Rejected the message: {rejection.detail}",
            reason=rejection.reason,
            detail=rejection.detail,
        )
        if self._quarantine is None:
            # There is a dead-letter policy: it takes the message once its delivery attempts are used up.
            return Nack(reason=rejection.reason)
        return _quarantine(self._quarantine, message, rejection)


def _quarantine(quarantine: Quarantine, message: Message, rejection: Reject) -> Ack | Defer:
    """Publish the message to the quarantine; if that fails, keep it and try again later."""
    try:
        quarantine.publish(
            message_id=message.message_id,
            data=message.data,
            attributes=dict(message.attributes),
            rejection=rejection,
        )
    except InvalidArgument as error:
        metrics.count_call("pubsub", "answered")
        return _log_in_full(message, rejection, f"the quarantine topic can't take it: {error.message}")
    except (GoogleAPICallError, RetryError) as error:
        refused = isinstance(error, ClientError)
        metrics.count_call("pubsub", "refused" if refused else "unavailable")
        event = Event.BACKEND_REFUSED if refused else Event.BACKEND_UNAVAILABLE
        log.error(
            event, f"Publishing to the quarantine topic failed: {describe_error(error)}", backend="pubsub"
        )
        return Defer(
            delay_seconds=full_jitter_seconds(low=10, high=60),
            reason="quarantine_unavailable",
            detail=f"it is rejected ({rejection.detail}), and the quarantine topic does not take it",
        )
    metrics.count_call("pubsub", "answered")
    return Ack(reason=rejection.reason)


def _log_in_full(message: Message, rejection: Reject, why: str) -> Ack:
    """Log the whole message, because it is stored nowhere else."""
    log.error(
        Event.MESSAGE_REJECTED,
        f"Rejected the message: {rejection.detail}. It is logged in full, because {why}.",
        reason=rejection.reason,
        detail=rejection.detail,
        dataBase64=base64.b64encode(message.data).decode(),
        attributes=dict(message.attributes),
    )
    return Ack(reason=rejection.reason)
