"""The ordinary calls of Google's asynchronous clients."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.api_core import exceptions
from google.pubsub_v1 import PublisherAsyncClient, StreamingPullRequest, SubscriberAsyncClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

from tests.support.cloud.clouds import PROJECT

LONG = 15
pytestmark = pytest.mark.serves("Publish", "Pull", "StreamingPull")


@asynccontextmanager
async def _clients(address):
    """Yield a publisher, a subscriber, and the names of a new topic and subscription."""
    name = uuid.uuid4().hex
    topic, subscription = f"projects/{PROJECT}/topics/t{name}", f"projects/{PROJECT}/subscriptions/s{name}"
    async with grpc.aio.insecure_channel(address) as channel:
        publisher = PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel))
        subscriber = SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel))
        await publisher.create_topic(name=topic)
        settings = {"name": subscription, "topic": topic, "retain_acked_messages": True}
        await subscriber.create_subscription(request=settings)
        yield publisher, subscriber, topic, subscription


async def _pulled(subscriber, subscription):
    """Pull one message and acknowledge it; return its data."""
    response = await subscriber.pull(subscription=subscription, max_messages=1, timeout=LONG)
    ack_ids = [received.ack_id for received in response.received_messages]
    await subscriber.acknowledge(subscription=subscription, ack_ids=ack_ids)
    return response.received_messages[0].message.data


async def _publish_pull_and_seek(address):
    async with _clients(address) as (publisher, subscriber, topic, subscription):
        sent = await publisher.publish(topic=topic, messages=[{"data": b"a"}])
        assert len(sent.message_ids) == 1
        assert await _pulled(subscriber, subscription) == b"a"
        earlier = datetime.now(UTC) - timedelta(minutes=1)
        await subscriber.seek(request={"subscription": subscription, "time": earlier})
        assert await _pulled(subscriber, subscription) == b"a"
        topics = [found.name async for found in await publisher.list_topics(project=f"projects/{PROJECT}")]
        assert topic in topics
        await subscriber.delete_subscription(subscription=subscription)
        await publisher.delete_topic(topic=topic)
        with pytest.raises(exceptions.NotFound):
            await publisher.get_topic(topic=topic)


async def _nack_and_ack_in_a_stream(address):
    async with _clients(address) as (publisher, subscriber, topic, subscription):
        requests = asyncio.Queue()

        async def sent():
            while request := await requests.get():
                yield request

        await requests.put(StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=10))
        stream = aiter(await subscriber.streaming_pull(requests=sent(), timeout=LONG))
        await publisher.publish(topic=topic, messages=[{"data": b"a"}])
        first = (await anext(stream)).received_messages[0]
        nack = {"modify_deadline_ack_ids": [first.ack_id], "modify_deadline_seconds": [0]}
        await requests.put(StreamingPullRequest(nack))
        second = (await anext(stream)).received_messages[0]
        assert second.message.message_id == first.message.message_id
        await requests.put(StreamingPullRequest(ack_ids=[second.ack_id]))
        await requests.put(None)


@pytest.mark.parametrize("calls", [_publish_pull_and_seek, _nack_and_ack_in_a_stream])
def test_asynchronous_clients(environment, calls):
    """Asynchronous clients create, publish, pull, nack, acknowledge, seek, list, delete and stream."""
    asyncio.run(calls(environment["PUBSUB_EMULATOR_HOST"]))
