"""The callback of the stream: handle and settle one delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.handling.messages import IncomingMessage
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.observability.observers import Stage, annotate, stage

if TYPE_CHECKING:
    from google.cloud.pubsub_v1.subscriber.message import Message

    from daemon.handling.handler import MessageHandler
    from daemon.lifecycle.drain import Drain
    from daemon.subscription.settlement import Settlement


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
            bound(messageId=message.message_id),
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
                annotate(disposition="drop", reason="internal_error")
                message.drop()
