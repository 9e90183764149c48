"""Seek to a time and to snapshots."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from google.api_core import exceptions
from google.protobuf import duration_pb2, timestamp_pb2

from tests.support.cloud.clouds import PROJECT

pytestmark = pytest.mark.serves("Seek")


@pytest.fixture
def snapshot(channel):
    """Return the name of a snapshot that does not exist yet."""
    return channel.subscriber.snapshot_path(PROJECT, f"n{uuid.uuid4().hex}")


def _all(channel):
    """Receive and acknowledge everything; return the data in the order of publishing."""
    received = channel.pull(most=10)
    for one in received:
        channel.acknowledge(one.ack_id)
    return sorted(one.message.data.decode() for one in received)


def _seek(channel, **target):
    channel.subscriber.seek(request={"subscription": channel.subscription, **target})


def _published_times(channel, *texts):
    """Publish messages one after the other; return the publish time of each."""
    for text in texts:
        channel.publish(text.encode())
    received = channel.pull(most=10)
    while len(received) < len(texts):
        received += channel.pull(most=10)
    for one in received:
        channel.acknowledge(one.ack_id)
    return {one.message.data.decode(): one.message.publish_time for one in received}


@pytest.mark.serves("Seek", "Subscription.retain_acked_messages")
def test_a_seek_to_an_earlier_time_delivers_acknowledged_messages_again(new_channel):
    """With `retain_acked_messages` a seek delivers what was published since then, acknowledged or not."""
    channel = new_channel(retain_acked_messages=True)
    times = _published_times(channel, "a", "b", "c")
    _seek(channel, time=times["b"])
    assert _all(channel) == ["b", "c"]
    _seek(channel, time=times["a"] - timedelta(seconds=1))
    assert _all(channel) == ["a", "b", "c"]


def test_without_retained_messages_a_seek_back_delivers_what_is_left(channel):
    """Without `retain_acked_messages` a seek back delivers only what is not acknowledged, leased or not."""
    channel.publish(b"acknowledged")
    channel.acknowledge(channel.pull()[0].ack_id)
    channel.publish(b"leased")
    channel.pull()
    _seek(channel, time=datetime.now(UTC) - timedelta(seconds=30))
    assert [received.message.data for received in channel.pull(most=10)] == [b"leased"]


def test_a_seek_to_the_future_drops_everything(channel):
    """A seek to the future acknowledges all messages, also leased ones; later ones are delivered."""
    channel.publish(b"a")
    channel.publish(b"b")
    (held,) = channel.pull()
    _seek(channel, time=datetime.now(UTC) + timedelta(minutes=1))
    channel.modify(held.ack_id, 0)
    assert not channel.pull(wait=False)


@pytest.mark.serves("Topic.message_retention_duration")
def test_a_topic_keeps_messages_from_before_its_subscription(publisher, subscriber, new_channel):
    """With `message_retention_duration` of its topic a subscription can go back to before its creation."""
    channel = new_channel()
    topic, name = f"{channel.topic}-kept", f"{channel.subscription}-late"
    hour = duration_pb2.Duration(seconds=3600)
    publisher.create_topic(request={"name": topic, "message_retention_duration": hour})
    publisher.publish(topic, b"early").result(timeout=10)
    subscriber.create_subscription(name=name, topic=topic)
    late = type(channel)(publisher=publisher, subscriber=subscriber, topic=topic, subscription=name)
    _seek(late, time=datetime.now(UTC) - timedelta(minutes=1))
    assert _all(late) == ["early"]


@pytest.mark.serves("Seek", "CreateSnapshot")
def test_a_seek_to_a_snapshot_restores_what_was_not_acknowledged(channel, snapshot):
    """A snapshot keeps what was not acknowledged, and what is published since."""
    channel.publish(b"before")
    channel.acknowledge(channel.pull()[0].ack_id)
    channel.publish(b"open")
    channel.subscriber.create_snapshot(name=snapshot, subscription=channel.subscription)
    channel.publish(b"since")
    assert _all(channel) == ["open", "since"]
    _seek(channel, snapshot=snapshot)
    assert _all(channel) == ["open", "since"]


@pytest.mark.serves("Seek", "CreateSnapshot")
def test_another_subscription_of_the_topic_takes_over_a_snapshot(channel, new_channel, snapshot):
    """A snapshot serves every subscription of its topic; on another topic it is refused."""
    other = f"{channel.subscription}-other"
    channel.subscriber.create_subscription(name=other, topic=channel.topic)
    channel.subscriber.create_snapshot(name=snapshot, subscription=channel.subscription)
    channel.publish(b"x")
    second = type(channel)(
        publisher=channel.publisher, subscriber=channel.subscriber, topic=channel.topic, subscription=other
    )
    assert _all(second) == ["x"]
    _seek(second, snapshot=snapshot)
    assert _all(second) == ["x"]
    with pytest.raises(exceptions.FailedPrecondition):
        _seek(new_channel(), snapshot=snapshot)


@pytest.mark.serves("CreateSnapshot", "GetSnapshot", "ListSnapshots", "ListTopicSnapshots", "DeleteSnapshot")
def test_snapshots_are_described_listed_and_deleted(channel, snapshot):
    """A snapshot has its topic and expires in seven days; it is listed until it is deleted."""
    created = channel.subscriber.create_snapshot(name=snapshot, subscription=channel.subscription)
    described = channel.subscriber.get_snapshot(snapshot=snapshot)
    assert (described.topic, described.expire_time) == (channel.topic, created.expire_time)
    assert timedelta(days=6.9) < described.expire_time - datetime.now(UTC) < timedelta(days=7.1)
    with pytest.raises(exceptions.AlreadyExists):
        channel.subscriber.create_snapshot(name=snapshot, subscription=channel.subscription)
    project = f"projects/{PROJECT}"
    assert snapshot in [found.name for found in channel.subscriber.list_snapshots(project=project)]
    assert list(channel.publisher.list_topic_snapshots(topic=channel.topic)) == [snapshot]
    channel.subscriber.delete_snapshot(snapshot=snapshot)
    assert list(channel.publisher.list_topic_snapshots(topic=channel.topic)) == []


@pytest.mark.serves("Seek", "CreateSnapshot", "GetSnapshot", "DeleteSnapshot")
def test_seeks_that_make_no_sense_are_refused(channel, snapshot):
    """A seek without a target is refused; a missing snapshot or subscription is not found."""
    subscriber, gone = channel.subscriber, f"{channel.subscription}-gone"
    with pytest.raises(exceptions.InvalidArgument, match="No target"):
        _seek(channel)
    with pytest.raises(exceptions.InvalidArgument, match="invalid time"):
        _seek(channel, time=timestamp_pb2.Timestamp(seconds=5, nanos=-5))
    calls = [
        lambda: _seek(channel, snapshot=snapshot),
        lambda: subscriber.seek(request={"subscription": gone, "time": datetime.now(UTC)}),
        lambda: subscriber.create_snapshot(name=snapshot, subscription=gone),
        lambda: subscriber.get_snapshot(snapshot=snapshot),
        lambda: subscriber.delete_snapshot(snapshot=snapshot),
    ]
    for call in calls:
        with pytest.raises(exceptions.NotFound):
            call()
    with pytest.raises(exceptions.InvalidArgument, match=r"Invalid \[snapshots\] name"):
        subscriber.create_snapshot(name="projects/p/snapshots/1", subscription=channel.subscription)
