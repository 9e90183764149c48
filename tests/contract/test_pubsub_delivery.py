"""Pull, acknowledge, deadlines, redelivery, retry policy, dead letters."""

from __future__ import annotations

import time

import pytest
from google.api_core import exceptions
from google.protobuf import duration_pb2

pytestmark = pytest.mark.serves("Pull")


@pytest.fixture(scope="module", autouse=True)
def leased(new_channel):
    """Lease a message at the start of the module, so that other tests run during its ten seconds."""
    channel = new_channel()
    channel.publish(b"expires")
    (received,) = channel.pull()
    return channel, received, time.monotonic()


@pytest.fixture(scope="module", autouse=True)
def retried(new_channel):
    """Nack a message once under a retry policy, at the start of the module."""
    backoff = {
        "minimum_backoff": duration_pb2.Duration(seconds=2),
        "maximum_backoff": duration_pb2.Duration(seconds=3),
    }
    channel = new_channel(retry_policy=backoff)
    channel.publish(b"again")
    began = time.monotonic()
    for _ in range(2):
        (received,) = channel.pull()
        channel.modify(received.ack_id, 0)
    return channel, began


@pytest.mark.serves("Acknowledge")
def test_an_acknowledged_message_is_gone(channel):
    """An acknowledged message is not delivered again."""
    channel.publish()
    (received,) = channel.pull()
    channel.acknowledge(received.ack_id)
    channel.modify(received.ack_id, 0)
    assert not channel.pull(wait=False)


def test_a_leased_message_is_not_delivered_again(channel):
    """A leased message is not delivered again before its deadline."""
    channel.publish()
    assert len(channel.pull()) == 1
    assert not channel.pull(wait=False)


@pytest.mark.serves("ModifyAckDeadline")
def test_a_nack_brings_the_message_back_at_once(channel):
    """A nack (deadline 0) redelivers the message at once with the same id and a new ack id."""
    channel.publish()
    (first,) = channel.pull()
    began = time.monotonic()
    channel.modify(first.ack_id, 0)
    (second,) = channel.pull()
    assert time.monotonic() - began < 1
    assert second.message.message_id == first.message.message_id
    assert second.ack_id != first.ack_id


@pytest.mark.serves("ModifyAckDeadline")
def test_a_deferred_message_comes_back_when_its_deadline_passes(channel):
    """After `modify_ack_deadline(2)` the message is delivered again when the deadline passes."""
    channel.publish()
    (first,) = channel.pull()
    channel.modify(first.ack_id, 2)
    began = time.monotonic()
    (second,) = channel.pull()
    assert 1.8 <= time.monotonic() - began <= 3.5
    assert second.message.message_id == first.message.message_id


@pytest.mark.serves("Acknowledge", "ModifyAckDeadline")
def test_the_ack_id_of_an_earlier_delivery_does_nothing(channel):
    """An ack or nack with the ack id of an earlier delivery has no effect on the new one."""
    channel.publish()
    (first,) = channel.pull()
    channel.modify(first.ack_id, 0)
    (second,) = channel.pull()
    channel.acknowledge(first.ack_id)
    channel.modify(first.ack_id, 0)
    assert not channel.pull(wait=False)
    channel.modify(second.ack_id, 0)
    assert len(channel.pull()) == 1


@pytest.mark.serves("Acknowledge")
def test_acknowledging_twice_is_fine(channel):
    """A second acknowledge of the same message has no effect."""
    channel.publish()
    (received,) = channel.pull()
    channel.acknowledge(received.ack_id)
    channel.acknowledge(received.ack_id)


def test_calls_that_make_no_sense_are_refused(channel):
    """Calls without ids, with invalid ids, negative deadlines or no message count are refused."""
    # Deadlines above 600 s are refused by production and the embedded cloud, not by the official emulator:
    # tests/unit/localcloud/test_embedded_pubsub.py.
    subscriber, name = channel.subscriber, channel.subscription
    calls = [
        lambda: subscriber.acknowledge(subscription=name, ack_ids=[]),
        lambda: subscriber.acknowledge(subscription=name, ack_ids=["bogus"]),
        lambda: subscriber.modify_ack_deadline(subscription=name, ack_ids=[], ack_deadline_seconds=10),
        lambda: subscriber.modify_ack_deadline(subscription=name, ack_ids=["bogus"], ack_deadline_seconds=10),
        lambda: channel.modify(f"{name}:1", -1),
        lambda: subscriber.pull(subscription=name, max_messages=0, timeout=10),
    ]
    for call in calls:
        with pytest.raises(exceptions.InvalidArgument):
            call()


def test_a_pull_takes_no_more_than_requested(channel):
    """A pull returns at most the requested number; other calls get the rest."""
    ids = {channel.publish() for _ in range(5)}
    got = channel.pull(most=3)
    assert len(got) <= 3
    while len(got) < 5:
        got += channel.pull(most=3)
    assert {received.message.message_id for received in got} == ids
    assert not channel.pull(wait=False)


@pytest.mark.serves("Subscription.dead_letter_policy")
def test_without_a_policy_no_attempt_is_reported(channel):
    """Without a dead-letter policy the attempt is 0, which Google's client shows as None."""
    channel.publish()
    (received,) = channel.pull()
    assert received.delivery_attempt == 0


@pytest.mark.serves("Subscription.dead_letter_policy")
def test_a_message_nacked_too_often_is_dead_lettered(new_channel):
    """After five deliveries a message goes to the dead-letter topic with the name of its source."""
    dead = new_channel()
    channel = new_channel(dead_letter_policy={"dead_letter_topic": dead.topic, "max_delivery_attempts": 5})
    channel.publish(b"body", runId="r")
    attempts = []
    for _ in range(5):
        (received,) = channel.pull()
        attempts.append(received.delivery_attempt)
        channel.modify(received.ack_id, 0)
    # The official emulator forwards only at the next pull from the source.
    assert not channel.pull(wait=False)
    (forwarded,) = dead.pull()
    assert attempts == [1, 2, 3, 4, 5]
    assert forwarded.message.data == b"body"
    assert forwarded.message.attributes["runId"] == "r"
    source = {
        key: value for key, value in forwarded.message.attributes.items() if key.startswith("CloudPubSub")
    }
    assert source.pop("CloudPubSubDeadLetterSourceTopicPublishTime").endswith("Z")
    assert source == {
        "CloudPubSubDeadLetterSourceSubscription": channel.subscription.split("/")[-1],
        "CloudPubSubDeadLetterSourceSubscriptionProject": "demo-project",
        "CloudPubSubDeadLetterSourceDeliveryCount": "5",
    }


@pytest.mark.serves("Subscription.retry_policy")
def test_a_retry_policy_delays_the_third_delivery(retried):
    """Under a retry policy the third delivery waits at least the minimum backoff."""
    # The official emulator redelivers the first time at once. Production and the embedded cloud wait. Exact
    # delays: tests/unit/localcloud/test_embedded_delivery.py.
    channel, began = retried
    (received,) = channel.pull()
    assert 1.8 <= time.monotonic() - began <= 9
    assert received.message.data == b"again"


@pytest.mark.serves("Subscription.ack_deadline_seconds")
def test_a_lease_that_is_not_extended_ends(leased):
    """Without an extension the message is redelivered after ten seconds, and its old ack id is invalid."""
    channel, first, began = leased
    (second,) = channel.pull()
    assert time.monotonic() - began >= 9.5
    assert second.message.message_id == first.message.message_id
    channel.acknowledge(first.ack_id)
    channel.modify(second.ack_id, 0)
    assert len(channel.pull()) == 1
