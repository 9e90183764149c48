"""Deliveries of Google's messages, handled and settled as in the daemon, on a bench."""

from __future__ import annotations

import json
import queue
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from google.cloud.pubsub_v1.subscriber.message import Message
from google.pubsub_v1.types import PubsubMessage

from daemon.composition import build_daemon
from daemon.lifecycle.drain import Drain
from daemon.lifecycle.liveness import Liveness
from daemon.lifecycle.stoppable_wait import StoppableWait
from daemon.settings import ChartsApiMode, Settings
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from tests.support.pipeline_bench import Bench


def a_message(body: dict, *, delivery_attempt: int = 0, **attributes: str) -> tuple[Message, queue.Queue]:
    """Return Google's message and the queue of its requests; attempt 0 = Pub/Sub does not count."""
    asked: queue.Queue = queue.Queue()
    content = PubsubMessage(
        data=json.dumps(body).encode(),
        attributes=attributes,
        message_id="m1",
        publish_time=datetime.now(UTC),
    )
    return Message(PubsubMessage.pb(content), "ack-id", delivery_attempt, asked), asked


def deliver(bench: Bench, message: Message) -> None:
    """Handle and settle a delivery with the daemon's parts."""
    pipeline = bench.pipeline()
    worker: Any = SimpleNamespace(
        documents=None,
        ledger=pipeline._ledger,
        pipeline=pipeline,
        artifacts=SimpleNamespace(probe=lambda: None),
        chart_img=None,
        clock=SystemClock(),
    )
    settings = Settings(
        google_cloud_project="demo-project",
        pubsub_subscription="charts-sub",
        charts_bucket="gs://charts-demo",
        charts_api_mode=ChartsApiMode.LOCAL,
        step_timeout_seconds=30.0,
    )
    parts = build_daemon(settings, worker, drain=Drain(), liveness=Liveness(), waiter=StoppableWait())
    parts.callback(message)
