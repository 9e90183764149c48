"""Fixtures that run Google's clients on the embedded cloud and on the official emulators."""

from __future__ import annotations

import uuid
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore, pubsub_v1, storage

from tests.support.cloud.clouds import PROJECT, clients_find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from localcloud import LocalCloud

BOTH = ["embedded", pytest.param("official", marks=pytest.mark.official)]


@pytest.fixture(scope="session", params=BOTH)
def environment(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Return the environment variables of one of the two clouds."""
    environment: Mapping[str, str] = request.getfixturevalue(request.param).environment()
    return environment


@pytest.fixture
def on_official(request: pytest.FixtureRequest) -> bool:
    """Return whether the test runs on Google's emulators."""
    return request.node.get_closest_marker("official") is not None


@pytest.fixture(scope="session")
def client(environment: Mapping[str, str]) -> Iterator[firestore.Client]:
    """Return Google's Firestore client."""
    with clients_find(environment):
        client = firestore.Client(project=PROJECT)
    yield client
    client.close()


@pytest.fixture
def collection(client: firestore.Client) -> firestore.CollectionReference:
    """Return a new collection for this test."""
    return client.collection(f"c{uuid.uuid4().hex}")


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Call Firestore's RPCs with requests written by hand."""

    client: firestore.Client

    @property
    def database(self) -> str:
        """Return the database's full name."""
        return str(self.client._database_string)

    def call(self, method: str, **request: Any) -> Any:
        """Call an RPC by its Python name, without retries."""
        rpc = getattr(self.client._firestore_api, method)
        return rpc(request=request, retry=None, timeout=20, metadata=self.client._rpc_metadata)

    def commit(self, *writes: Mapping[str, Any]) -> Any:
        """Write all of the writes or none."""
        return self.call("commit", database=self.database, writes=list(writes))

    def batch_write(self, *writes: Mapping[str, Any]) -> Any:
        """Write each of the writes on its own."""
        return self.call("batch_write", database=self.database, writes=list(writes))


@pytest.fixture
def raw(client: firestore.Client) -> Raw:
    """Return raw RPCs on the same cloud."""
    return Raw(client=client)


@pytest.fixture(scope="session")
def publisher(environment: Mapping[str, str]) -> Iterator[pubsub_v1.PublisherClient]:
    """Return Google's publisher client."""
    with clients_find(environment):
        publisher = pubsub_v1.PublisherClient()
    yield publisher
    publisher.stop()
    publisher.transport.close()


@pytest.fixture(scope="session")
def subscriber(environment: Mapping[str, str]) -> Iterator[pubsub_v1.SubscriberClient]:
    """Return Google's subscriber client."""
    with clients_find(environment):
        subscriber = pubsub_v1.SubscriberClient()
    yield subscriber
    subscriber.close()


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A topic with one subscription."""

    publisher: pubsub_v1.PublisherClient
    subscriber: pubsub_v1.SubscriberClient
    topic: str
    subscription: str

    def publish(self, data: bytes = b"x", **attributes: str) -> str:
        """Publish one message and return its id."""
        return str(self.publisher.publish(self.topic, data, **attributes).result(timeout=10))

    def pull(self, *, wait: bool = True, most: int = 1) -> list[Any]:
        """Return the received messages; with `wait` at least one."""
        while True:
            response = self._pull(most, wait=wait)
            if response.received_messages or not wait:
                return list(response.received_messages)

    def _pull(self, most: int, *, wait: bool) -> Any:
        with warnings.catch_warnings():
            # `return_immediately` is deprecated, but a test has no better way to see an empty queue.
            warnings.simplefilter("ignore", DeprecationWarning)
            # No retry: a repeated pull after a timeout can hold a message for one ack deadline.
            return self.subscriber.pull(
                subscription=self.subscription,
                max_messages=most,
                return_immediately=not wait,
                retry=None,
                timeout=30,
            )

    def modify(self, ack_id: str, seconds: int) -> None:
        """Change the ack deadline of one message."""
        self.subscriber.modify_ack_deadline(
            subscription=self.subscription, ack_ids=[ack_id], ack_deadline_seconds=seconds
        )

    def acknowledge(self, ack_id: str) -> None:
        """Acknowledge one message."""
        self.subscriber.acknowledge(subscription=self.subscription, ack_ids=[ack_id])


@pytest.fixture(scope="session")
def new_channel(
    publisher: pubsub_v1.PublisherClient, subscriber: pubsub_v1.SubscriberClient
) -> Callable[..., Channel]:
    """Create a topic and a subscription with the given settings."""

    def make(**settings: Any) -> Channel:
        name = f"t{uuid.uuid4().hex}"
        topic = publisher.topic_path(PROJECT, name)
        subscription = subscriber.subscription_path(PROJECT, name)
        publisher.create_topic(name=topic)
        subscriber.create_subscription(request={"name": subscription, "topic": topic, **settings})
        return Channel(publisher=publisher, subscriber=subscriber, topic=topic, subscription=subscription)

    return make


@pytest.fixture
def channel(new_channel: Callable[..., Channel]) -> Channel:
    """Return a new topic and subscription for this test."""
    return new_channel()


@pytest.fixture(scope="session")
def storage_client(embedded: LocalCloud) -> Iterator[storage.Client]:
    """Return Google's Cloud Storage client. Google has no emulator of Cloud Storage."""
    with clients_find(embedded.environment()):
        client = storage.Client(project=PROJECT, credentials=AnonymousCredentials())
    yield client
    client.close()


@pytest.fixture
def bucket(storage_client: storage.Client) -> storage.Bucket:
    """Return a new bucket for this test."""
    return storage_client.create_bucket(f"b{uuid.uuid4().hex}")


@pytest.fixture
def http(embedded: LocalCloud) -> Iterator[httpx.Client]:
    """Return a client for requests written by hand."""
    with httpx.Client(base_url=embedded.storage.url, headers={"Accept-Encoding": "gzip"}) as client:
        yield client
