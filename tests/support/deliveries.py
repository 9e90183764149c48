"""Deliveries of Google's own messages, handled and settled as in the daemon, on a bench."""

from __future__ import annotations

import json
import queue
from typing import TYPE_CHECKING

from google.cloud.pubsub_v1.subscriber.message import Message
from google.pubsub_v1.types import PubsubMessage

from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.handling.handler import MessageHandler
from daemon.lifecycle.drain import Drain
from daemon.subscription.callback import Delivery
from daemon.subscription.settlement import Settlement
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from tests.support.pipeline_bench import Bench


def a_message(body: dict, *, delivery_attempt: int = 0, **attributes: str) -> tuple[Message, queue.Queue]:
    """Google's own message, and the queue of what is asked of it; attempt 0 = Pub/Sub counts none."""
    asked: queue.Queue = queue.Queue()
    content = PubsubMessage(data=json.dumps(body).encode(), attributes=attributes, message_id="m1")
    return Message(PubsubMessage.pb(content), "ack-id", delivery_attempt, asked), asked


def deliver(bench: Bench, message: Message) -> None:
    """Have a delivery handled and settled, by parts as the daemon's."""
    pipeline, drain = bench.pipeline(), Drain()
    handler = MessageHandler(
        ledger=pipeline._ledger,
        pipeline=pipeline,
        breaker=CircuitBreaker(probes={}),
        drain=drain,
        clock=SystemClock(),
        step_timeout_seconds=30.0,
        not_ready_grace_seconds=600.0,
    )
    Delivery(handler=handler, settlement=Settlement(None), drain=drain)(message)
