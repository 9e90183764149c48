"""Exactly-once delivery and ordering keys."""

from __future__ import annotations

import queue

import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.types import PublisherOptions

from tests.support.cloud.clouds import clients_find

LONG = 15


@pytest.fixture
def ordered(environment, new_channel):
    """Return a channel with ordering, and a publisher that sends ordering keys."""
    with clients_find(environment):
        publisher = pubsub_v1.PublisherClient(
            publisher_options=PublisherOptions(enable_message_ordering=True)
        )
    channel = new_channel(enable_message_ordering=True)
    yield channel, lambda text, key: publisher.publish(channel.topic, text.encode(), ordering_key=key)
    publisher.stop()
    publisher.transport.close()


def _streamed(channel, callback, count):
    """Stream until `count` messages are done; return what the callback returned."""
    got = queue.Queue()
    future = channel.subscriber.subscribe(channel.subscription, lambda message: got.put(callback(message)))
    try:
        return [got.get(timeout=LONG) for _ in range(count)]
    finally:
        future.cancel()
        future.result(timeout=LONG)


@pytest.mark.serves("Subscription.enable_exactly_once_delivery")
def test_an_ack_id_without_effect_is_refused(new_channel):
    """With exactly-once delivery an ack or a new deadline for an ended lease fails and names the ack id."""
    channel = new_channel(enable_exactly_once_delivery=True)
    channel.publish()
    (received,) = channel.pull()
    channel.acknowledge(received.ack_id)
    for call in (channel.acknowledge, lambda ack_id: channel.modify(ack_id, 20)):
        with pytest.raises(exceptions.InvalidArgument) as refused:
            call(received.ack_id)
        (info,) = refused.value.details
        assert info.reason == "EXACTLY_ONCE_ACKID_FAILURE"
        assert info.metadata == {received.ack_id: "PERMANENT_FAILURE_INVALID_ACK_ID"}


@pytest.mark.serves("Subscription.enable_exactly_once_delivery")
def test_the_client_confirms_acks(new_channel):
    """Google's client sees the setting in the stream, and `ack_with_response` confirms each ack."""
    channel = new_channel(enable_exactly_once_delivery=True)
    channel.publish()
    confirmed = _streamed(channel, lambda message: message.ack_with_response(), 1)[0]
    assert confirmed.result(timeout=LONG).name == "SUCCESS"
    assert not channel.pull(wait=False)


@pytest.mark.serves("Subscription.enable_message_ordering")
def test_a_key_keeps_its_order(ordered):
    """Messages of one ordering key arrive in the order of publishing, those of many keys too."""
    channel, publish = ordered
    sent = [(key, str(number)) for number in range(10) for key in ("a", "b")]
    for future in [publish(text, key) for key, text in sent]:
        future.result(timeout=LONG)

    def callback(message):
        message.ack()
        return message.ordering_key, message.data.decode()

    received = _streamed(channel, callback, len(sent))
    for key in ("a", "b"):
        assert [one for one in received if one[0] == key] == [one for one in sent if one[0] == key]


@pytest.mark.serves("Subscription.enable_message_ordering")
def test_the_next_message_of_a_key_waits_for_the_first(ordered):
    """While one call holds a message of a key, no other call gets the next one."""
    channel, publish = ordered
    for future in [publish("1", "k"), publish("2", "k")]:
        future.result(timeout=LONG)
    (first,) = channel.pull()
    assert not channel.pull(wait=False)
    channel.acknowledge(first.ack_id)
    assert channel.pull()[0].message.data == b"2"
