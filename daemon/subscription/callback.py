"""The stream's callback: one delivery from the client's message to its settlement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.handling.handler import IncomingMessage
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.observability.observers import Stage, annotate, stage

if TYPE_CHECKING:
    from google.cloud.pubsub_v1.subscriber.message import Message

    from daemon.handling.handler import MessageHandler
    from daemon.lifecycle.drain import Drain
    from daemon.subscription.settlement import Settlement


class Delivery:
    """Callable with a message; handles and settles it and never raises."""

    def __init__(self, *, handler: MessageHandler, settlement: Settlement, drain: Drain) -> None:
        self._handler = handler
        self._settlement = settlement
        self._drain = drain

    def __call__(self, message: Message) -> None:
        """Handle and settle one delivery."""
        metrics.MESSAGES_RECEIVED.inc()
        with (
            self._drain.delivery(),
            bound(messageId=message.message_id),
            stage(Stage.DELIVERY, carrier=message.attributes, **_known_of(message)),
        ):
            try:
                self._settlement.settle(message, self._handler.handle(_incoming(message)))
            except BaseException as error:  # noqa: BLE001 - see below
                # An error that leaves the callback nacks the message and ends the stream's future while
                # messages keep coming. The message is left to its ack deadline instead.
                log.error(Event.INTERNAL_ERROR, f"Settling failed: {error!r:.300}", exc_info=error)
                metrics.MESSAGES_SETTLED.labels("drop", "internal_error").inc()
                annotate(disposition="drop", reason="internal_error")
                message.drop()


def _known_of(message: Message) -> dict[str, str | int]:
    """Without a dead-letter policy Pub/Sub counts no attempts."""
    attempt = message.delivery_attempt
    known: dict[str, str | int] = {"messageId": message.message_id}
    return known if attempt is None else {**known, "deliveryAttempt": attempt}


def _incoming(message: Message) -> IncomingMessage:
    return IncomingMessage(
        message_id=message.message_id,
        data=message.data,
        attributes=dict(message.attributes),
        publish_time=message.publish_time,
        delivery_attempt=message.delivery_attempt,
    )
