"""StreamingPull with Google's SubscriberClient, as the daemon uses it."""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager

import pytest
from google.api_core import exceptions
from google.cloud.pubsub_v1.types import FlowControl, StreamingPullRequest

pytestmark = pytest.mark.serves("StreamingPull")

LONG = 15


@contextmanager
def _subscribed(channel, callback, **flow):
    """Stream until the block ends, then close the client."""
    future = channel.subscriber.subscribe(
        channel.subscription,
        callback,
        flow_control=FlowControl(max_messages=flow.get("max_messages", 10)),
        await_callbacks_on_shutdown=True,
    )
    try:
        yield future
    finally:
        future.cancel()
        future.result(timeout=LONG)


def test_messages_reach_the_callback_and_acks_count(channel):
    """Each message reaches the callback once with id, data and attributes; acked ones are gone."""
    got = queue.Queue()

    def callback(message):
        message.ack()
        got.put((message.message_id, message.data, dict(message.attributes), message.delivery_attempt))

    with _subscribed(channel, callback):
        sent = {channel.publish(b"%d" % number, n=str(number)) for number in range(20)}
        received = [got.get(timeout=LONG) for _ in sent]
    assert {message_id for message_id, *_ in received} == sent
    assert {(data.decode(), attributes["n"]) for _, data, attributes, _ in received} == {
        (str(number), str(number)) for number in range(20)
    }
    assert {attempt for *_, attempt in received} == {None}
    assert not channel.pull(wait=False)


def test_messages_published_before_the_stream_arrive(channel):
    """Messages published before the stream opened are delivered to it."""
    sent = channel.publish(b"early")
    got = queue.Queue()
    with _subscribed(channel, lambda message: (message.ack(), got.put(message.message_id))):
        assert got.get(timeout=LONG) == sent


def test_a_nacked_message_comes_back(channel):
    """A nacked message is delivered to the same stream again, with the same id."""
    deliveries = queue.Queue()
    first = threading.Event()

    def callback(message):
        deliveries.put(message.message_id)
        if first.is_set():
            message.ack()
        else:
            first.set()
            message.nack()

    with _subscribed(channel, callback):
        sent = channel.publish()
        assert [deliveries.get(timeout=LONG) for _ in range(2)] == [sent, sent]


def test_a_deferred_message_comes_back_later(channel):
    """A deferred message (`modify_ack_deadline` and drop) comes back later and takes no slot meanwhile."""
    got = queue.Queue()
    deliveries = threading.Semaphore(0)
    seen = []

    def callback(message):
        seen.append(message.message_id)
        if len(seen) == 1:
            message.modify_ack_deadline(2)
            message.drop()
        else:
            message.ack()
            got.put(message.message_id)
        deliveries.release()

    with _subscribed(channel, callback, max_messages=1):
        sent = channel.publish()
        assert deliveries.acquire(timeout=LONG)
        assert got.get(timeout=LONG) == sent
    assert seen == [sent, sent]
    assert not channel.pull(wait=False)


def test_callbacks_run_in_parallel_up_to_the_limit(channel):
    """As many callbacks run in parallel as flow control allows."""
    running = threading.Semaphore(0)
    release = threading.Event()

    def callback(message):
        running.release()
        release.wait(LONG)
        message.ack()

    with _subscribed(channel, callback, max_messages=3):
        for _ in range(5):
            channel.publish()
        for _ in range(3):
            assert running.acquire(timeout=LONG)
        assert not running.acquire(timeout=0.5)
        release.set()
        for _ in range(2):
            assert running.acquire(timeout=LONG)


def test_a_missing_subscription_ends_the_stream(channel):
    """For a missing subscription the stream's future raises NotFound."""
    future = channel.subscriber.subscribe(f"{channel.subscription}-gone", lambda message: message.ack())
    with pytest.raises(exceptions.NotFound):
        future.result(timeout=LONG)


def test_deleting_the_subscription_ends_the_stream(channel):
    """When the subscription is deleted the stream's future raises NotFound at once."""
    opened = threading.Event()

    def callback(message):
        message.ack()
        opened.set()

    future = channel.subscriber.subscribe(channel.subscription, callback)
    channel.publish()
    assert opened.wait(LONG)
    channel.subscriber.delete_subscription(subscription=channel.subscription)
    with pytest.raises(exceptions.NotFound):
        future.result(timeout=LONG)


def test_acks_of_the_last_callbacks_are_not_lost_at_shutdown(channel):
    """With `await_callbacks_on_shutdown` running callbacks end and their acks arrive."""
    started, release = threading.Event(), threading.Event()

    def callback(message):
        started.set()
        release.wait(LONG)
        message.ack()

    with _subscribed(channel, callback) as future:
        channel.publish()
        assert started.wait(LONG)
        future.cancel()
        release.set()
    assert not channel.pull(wait=False)


@pytest.mark.parametrize("seconds", [0, 5, 601])
def test_stream_deadlines_out_of_bounds_are_refused(channel, seconds):
    """Stream ack deadlines outside 10 to 600 seconds are refused."""
    request = StreamingPullRequest(subscription=channel.subscription, stream_ack_deadline_seconds=seconds)
    with pytest.raises(exceptions.InvalidArgument):
        list(channel.subscriber.streaming_pull(requests=iter([request])))


def test_acks_and_deadlines_travel_in_the_stream_too(channel):
    """Acks and deadlines in a stream's requests have the same effect as the unary calls."""
    channel.publish(b"ack")
    requests = queue.Queue()
    requests.put(StreamingPullRequest(subscription=channel.subscription, stream_ack_deadline_seconds=10))
    stream = channel.subscriber.streaming_pull(requests=iter(requests.get, None), timeout=LONG)
    ack_id = next(iter(stream)).received_messages[0].ack_id
    requests.put(StreamingPullRequest(modify_deadline_ack_ids=[ack_id], modify_deadline_seconds=[0]))
    ack_id = next(iter(stream)).received_messages[0].ack_id
    requests.put(StreamingPullRequest(ack_ids=[ack_id]))
    channel.publish(b"next")
    assert next(iter(stream)).received_messages[0].message.data == b"next"
    requests.put(None)
    stream.cancel()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda name: {"subscription": name},
        lambda name: {"modify_deadline_ack_ids": [f"{name}:1", f"{name}:2"], "modify_deadline_seconds": [1]},
    ],
    ids=["another subscription", "deadlines that do not match"],
)
def test_later_requests_that_make_no_sense_end_the_stream(channel, wrong):
    """A later request must not name a subscription, and needs a deadline for each ack id."""
    requests = queue.Queue()
    requests.put(StreamingPullRequest(subscription=channel.subscription, stream_ack_deadline_seconds=10))
    requests.put(StreamingPullRequest(**wrong(channel.subscription)))
    with pytest.raises(exceptions.InvalidArgument):
        list(channel.subscriber.streaming_pull(requests=iter(requests.get, None), timeout=LONG))
    requests.put(None)
