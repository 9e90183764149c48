"""A topic and a subscription for each measured process.

Processes share none, because an emulator keeps sending messages to the stream of a process that has ended.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

    from benchmarks.cloud import ReadySteps


class Queue:
    """A subscription that a process pulls from.

    Attributes:
        subscription: The full resource name.
    """

    def __init__(self, publisher: PublisherClient, *, topic: str, subscription: str) -> None:
        self._publisher, self._topic = publisher, topic
        self.subscription = subscription

    def publish(self, ready: ReadySteps) -> None:
        """Publish one plain message for each step and wait until all are stored."""
        bodies = [json.dumps({"runId": run, "stepId": step}).encode() for run, step in ready.steps]
        futures = [self._publisher.publish(self._topic, body) for body in bodies]
        for future in futures:
            future.result(timeout=60)


@contextlib.contextmanager
def open_queue(project: str, publisher: PublisherClient, subscriber: SubscriberClient) -> Iterator[Queue]:
    """Open an empty queue and delete it when the block ends."""
    name = f"bench-{secrets.token_hex(4)}"
    topic, subscription = f"projects/{project}/topics/{name}", f"projects/{project}/subscriptions/{name}"
    with contextlib.ExitStack() as made:
        publisher.create_topic(name=topic)
        made.callback(publisher.delete_topic, topic=topic)
        subscriber.create_subscription(name=subscription, topic=topic, ack_deadline_seconds=60)
        made.callback(subscriber.delete_subscription, subscription=subscription)
        yield Queue(publisher, topic=topic, subscription=subscription)
