"""The embedded Pub/Sub's faults and restart, and where it follows production, not the emulator."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import contextmanager

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.pubsub_v1.types import FlowControl, StreamingPullRequest
from google.pubsub_v1 import PublisherClient

from localcloud import Fault

LONG = 15


@contextmanager
def _subscribed(channel, callback, max_messages=10):
    future = channel.subscriber.subscribe(
        channel.subscription,
        callback,
        flow_control=FlowControl(max_messages=max_messages),
        await_callbacks_on_shutdown=True,
    )
    try:
        yield future
    finally:
        future.cancel()
        future.result(timeout=LONG)


@pytest.mark.parametrize(
    "attributes",
    [{str(number): "x" for number in range(101)}, {"k" * 257: "x"}, {"": "x"}, {"k": "x" * 1025}],
    ids=["too many", "long key", "empty key", "long value"],
)
def test_attributes_beyond_the_limits_are_refused(channel, attributes):
    """Attributes beyond the limits are refused, as in production; the official emulator accepts them."""
    with pytest.raises(exceptions.InvalidArgument):
        PublisherClient.publish(channel.publisher, topic=channel.topic, messages=[{"attributes": attributes}])


def test_messages_beyond_ten_megabytes_are_refused(channel):
    """Messages over ten megabytes are refused, as in production; the official emulator accepts them."""
    with pytest.raises(exceptions.InvalidArgument):
        PublisherClient.publish(
            channel.publisher, topic=channel.topic, messages=[{"data": b"x" * 10_000_001}]
        )


def test_deadlines_are_ten_to_six_hundred_seconds(channel):
    """Deadlines outside 10 to 600 seconds are refused, as in production."""
    with pytest.raises(exceptions.InvalidArgument):
        channel.subscriber.create_subscription(
            request={"name": f"{channel.subscription}-5", "topic": channel.topic, "ack_deadline_seconds": 5}
        )
    channel.publish()
    (received,) = channel.pull()
    with pytest.raises(exceptions.InvalidArgument):
        channel.subscriber.modify_ack_deadline(
            subscription=channel.subscription, ack_ids=[received.ack_id], ack_deadline_seconds=601
        )


def test_a_stream_gets_no_more_than_it_can_hold(cloud, channel):
    """A stream gets at most max_outstanding_messages; the official emulator sends everything."""
    for _ in range(10):
        channel.publish()
    requests = queue.Queue()
    requests.put(
        StreamingPullRequest(
            subscription=channel.subscription, stream_ack_deadline_seconds=60, max_outstanding_messages=3
        )
    )
    stream = channel.subscriber.streaming_pull(requests=iter(requests.get, None), timeout=LONG)
    responses = iter(stream)
    first = next(responses).received_messages
    assert len(first) == 3
    assert cloud.pubsub.leased(channel.subscription) == 3
    requests.put(StreamingPullRequest(ack_ids=[received.ack_id for received in first[:2]]))
    assert len(next(responses).received_messages) <= 2
    requests.put(None)
    stream.cancel()


def test_messages_that_one_stream_has_no_room_for_go_to_another(channel):
    """Messages that one stream has no room for are delivered to another."""
    release, busy, other = threading.Event(), threading.Event(), queue.Queue()

    def slow(message):
        busy.set()
        release.wait(LONG)
        message.ack()

    with _subscribed(channel, slow, max_messages=1):
        channel.publish()
        assert busy.wait(LONG)
        with _subscribed(channel, lambda message: (message.ack(), other.put(message.message_id))):
            sent = {channel.publish() for _ in range(5)}
            assert {other.get(timeout=LONG) for _ in sent} == sent
        release.set()


def test_a_duplicate_is_delivered_twice(cloud, channel):
    """A duplicate fault delivers the same message id twice without a nack."""
    cloud.pubsub.faults.add(Fault(method="Deliver", duplicate=True, times=1))
    got = queue.Queue()
    with _subscribed(channel, lambda message: (message.ack(), got.put(message.message_id))):
        sent = channel.publish()
        assert [got.get(timeout=LONG) for _ in range(2)] == [sent, sent]


def test_a_lost_ack_brings_the_message_back(cloud, channel):
    """After a lost ack the call returns OK, and the message is redelivered when its lease ends."""
    cloud.pubsub.faults.add(Fault(method="Acknowledge", drop=True, times=1))
    channel.publish()
    (received,) = channel.pull()
    channel.subscriber.acknowledge(subscription=channel.subscription, ack_ids=[received.ack_id])
    assert cloud.pubsub.leased(channel.subscription) == 1
    channel.subscriber.modify_ack_deadline(
        subscription=channel.subscription, ack_ids=[received.ack_id], ack_deadline_seconds=1
    )
    assert channel.pull()[0].message.message_id == received.message.message_id


def test_a_late_ack_lands_late(cloud, channel):
    """A delayed ack takes its time and then counts."""
    cloud.pubsub.faults.add(Fault(method="Acknowledge", delay_seconds=0.2, times=1))
    channel.publish()
    (received,) = channel.pull()
    began = time.monotonic()
    channel.subscriber.acknowledge(subscription=channel.subscription, ack_ids=[received.ack_id])
    assert time.monotonic() - began >= 0.2
    assert cloud.pubsub.unacked(channel.subscription) == 0


def test_a_lost_delivery_comes_again_after_its_deadline(cloud, channel):
    """A lost delivery leaves the message leased, and it is delivered again after its deadline."""
    cloud.pubsub.faults.add(Fault(method="Deliver", drop=True, match="needle", times=1))
    channel.publish(b"needle")
    assert channel.pull() == []
    assert cloud.pubsub.leased(channel.subscription) == 1


def test_a_reset_stream_reopens(cloud, channel):
    """After a stream reset (Unavailable) Google's client reopens the stream, and no message is lost."""
    got = queue.Queue()
    with _subscribed(channel, lambda message: (message.ack(), got.put(message.data))) as future:
        channel.publish(b"1")
        assert got.get(timeout=LONG) == b"1"
        assert cloud.pubsub.reset_streams() == 1
        assert cloud.pubsub.calls.wait_for("StreamingPull", 2, timeout_seconds=LONG)
        channel.publish(b"2")
        assert got.get(timeout=LONG) == b"2"
        assert future.running()


def test_a_stream_can_fail_to_open(cloud, channel):
    """PermissionDenied on opening a stream ends its future."""
    cloud.pubsub.faults.add(Fault(method="StreamingPull", error="PERMISSION_DENIED"))
    future = channel.subscriber.subscribe(channel.subscription, lambda message: message.ack())
    with pytest.raises(exceptions.PermissionDenied):
        future.result(timeout=LONG)


def test_a_stop_and_start_under_an_open_stream(cloud, channel):
    """After a stop and start the client reconnects, and unacknowledged messages are still there.

    Google's client makes up to five attempts in ten seconds to reopen a stream and uses them up at once. So
    this test takes ten seconds, however early the service is back.
    """
    got = queue.Queue()
    with _subscribed(channel, lambda message: (message.ack(), got.put(message.data))):
        channel.publish(b"1")
        assert got.get(timeout=LONG) == b"1"
        assert cloud.pubsub.calls.wait_for("Acked", 1, timeout_seconds=LONG)
        began = time.monotonic()
        cloud.pubsub.stop()
        assert time.monotonic() - began < 3
        cloud.pubsub.start()
        assert cloud.pubsub.calls.wait_for("StreamingPull", 2, timeout_seconds=LONG)
        channel.publish(b"2")
        assert got.get(timeout=LONG) == b"2"


def test_a_stop_accepts_no_calls_before_it_ends_the_open_ones(cloud, monkeypatch):
    """A stream that its client reopens during a stop would end as CANCELLED, and the client would give up."""
    codes = []
    wake = cloud.pubsub.wake

    def call_and_wake():
        with grpc.insecure_channel(cloud.pubsub.address) as channel, pytest.raises(grpc.RpcError) as ended:
            channel.unary_unary("/google.pubsub.v1.Publisher/GetTopic")(b"", timeout=LONG)
        codes.append(ended.value.code())
        wake()

    monkeypatch.setattr(cloud.pubsub, "wake", call_and_wake)
    cloud.pubsub.restart()
    assert codes == [grpc.StatusCode.UNAVAILABLE]


def test_a_restart_that_loses_state_knows_no_subscription(cloud, channel):
    """After a restart without state the open stream ends with Unavailable, the next with NotFound."""
    request = StreamingPullRequest(subscription=channel.subscription, stream_ack_deadline_seconds=10)
    held = queue.Queue()
    held.put(request)
    stream = channel.subscriber.streaming_pull(requests=iter(held.get, None), timeout=LONG)
    assert cloud.pubsub.calls.wait_for("StreamingPull", 1, timeout_seconds=LONG)
    cloud.pubsub.restart(lose_state=True)
    with pytest.raises(exceptions.ServiceUnavailable):
        next(iter(stream))
    held.put(None)
    with pytest.raises(exceptions.NotFound):
        channel.subscriber.get_subscription(subscription=channel.subscription, timeout=LONG)


def test_a_pull_that_timed_out_receives_no_message(channel):
    """A pull that timed out leaves the message for the next one; the official emulator holds it a while."""
    with pytest.raises(exceptions.DeadlineExceeded):
        channel.subscriber.pull(subscription=channel.subscription, max_messages=1, retry=None, timeout=0.2)
    channel.publish()
    assert len(channel.pull()) == 1


def test_a_closed_stream_keeps_its_leases_until_their_deadline(cloud, channel):
    """The messages of a closed stream stay leased until their deadline, as in production."""
    channel.publish()
    requests = queue.Queue()
    requests.put(StreamingPullRequest(subscription=channel.subscription, stream_ack_deadline_seconds=10))
    stream = channel.subscriber.streaming_pull(requests=iter(requests.get, None), timeout=LONG)
    assert len(next(iter(stream)).received_messages) == 1
    stream.cancel()
    requests.put(None)
    assert cloud.pubsub.leased(channel.subscription) == 1


@pytest.mark.parametrize("field", ["max_outstanding_messages", "max_outstanding_bytes", "protocol_version"])
def test_the_settings_of_an_open_stream_can_not_change(channel, field):
    """A later request with a setting of the stream ends it, as in production; the emulator ignores it."""
    requests = queue.Queue()
    requests.put(StreamingPullRequest(subscription=channel.subscription, stream_ack_deadline_seconds=10))
    requests.put(StreamingPullRequest(**{field: 5}))
    with pytest.raises(exceptions.InvalidArgument, match=field):
        list(channel.subscriber.streaming_pull(requests=iter(requests.get, None), timeout=LONG))
    requests.put(None)
