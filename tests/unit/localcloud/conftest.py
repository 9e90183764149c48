"""Fixtures: Google's clients on a new embedded cloud."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore, pubsub_v1, storage

from tests.support.cloud.clouds import PROJECT, clients_find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localcloud import LocalCloud


@pytest.fixture
def client(cloud: LocalCloud) -> Iterator[firestore.Client]:
    """Return Google's Firestore client."""
    with clients_find(cloud.environment()):
        client = firestore.Client(project=PROJECT)
    yield client
    client.close()


@pytest.fixture
def document(client: firestore.Client) -> firestore.DocumentReference:
    """Create a document `{"a": 1}`."""
    document = client.document("runs/r")
    document.set({"a": 1})
    return document


@pytest.fixture
def bucket(cloud: LocalCloud) -> Iterator[storage.Bucket]:
    """Create a bucket through Google's client."""
    with clients_find(cloud.environment()):
        client = storage.Client(project=PROJECT, credentials=AnonymousCredentials())
    yield client.create_bucket("charts")
    client.close()


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A topic with one subscription, and clients."""

    publisher: pubsub_v1.PublisherClient
    subscriber: pubsub_v1.SubscriberClient
    topic: str
    subscription: str

    def publish(self, data: bytes = b"x") -> str:
        """Publish one message and return its id."""
        return str(self.publisher.publish(self.topic, data).result(timeout=10))

    def pull(self, most: int = 1) -> list[Any]:
        """Pull once and return the messages that arrive in time."""
        response = self.subscriber.pull(
            subscription=self.subscription, max_messages=most, retry=None, timeout=15
        )
        return list(response.received_messages)


@pytest.fixture
def channel(cloud: LocalCloud) -> Iterator[Channel]:
    """Create a topic and a subscription."""
    with clients_find(cloud.environment()):
        publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
    name = f"t{uuid.uuid4().hex}"
    topic, subscription = publisher.topic_path(PROJECT, name), subscriber.subscription_path(PROJECT, name)
    publisher.create_topic(name=topic)
    subscriber.create_subscription(name=subscription, topic=topic)
    yield Channel(publisher=publisher, subscriber=subscriber, topic=topic, subscription=subscription)
    publisher.stop()
    publisher.transport.close()
    subscriber.close()
