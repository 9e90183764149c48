"""Settlement on real Pub/Sub servers: the effect of each disposition on the subscription."""

from __future__ import annotations

import itertools
import queue
import time
from contextlib import contextmanager

import pytest

from daemon.handling.disposition import Ack, Defer, Nack, Reject
from daemon.settings import Settings, load_settings
from daemon.subscription.callback import Settlement
from daemon.subscription.publisher import Publisher
from daemon.subscription.quarantine import Quarantine
from daemon.subscription.stream import Subscriber
from tests.support.cloud.clouds import clients_find
from worker_chart_export.errors import BackendRefused


@contextmanager
def pulling(deployment, settlement, dispositions):
    """Stream and settle the n-th delivery with the n-th disposition; yield a queue of deliveries."""
    arrived = queue.Queue()
    remaining = iter(dispositions)

    def callback(message):
        settlement.settle(message, next(remaining))
        arrived.put((time.monotonic(), message))

    with clients_find(deployment.settings()):
        subscriber = Subscriber(load_settings(Settings))
        stream = subscriber.open(callback)
        try:
            yield arrived
        finally:
            stream.cancel()
            stream.result(timeout=20)
            subscriber.close()


@pytest.fixture
def quarantine(deployment):
    """Return the deployment's quarantine."""
    publisher = Publisher()
    yield Quarantine(
        publisher=publisher, topic=deployment.quarantine_topic, subscription=deployment.subscription
    )
    publisher.close()


def test_a_deferred_message_comes_back_after_its_delay(deployment):
    """It comes back right after its delay, and not before.

    At the moment of a deferral the client may just extend the deadlines of all its messages, once in nine
    seconds. Then the message comes back after ten seconds; that does not happen twice.
    """
    deferred = Defer(delay_seconds=3, reason="test")
    dispositions = [deferred, deferred, Ack(reason="test")]
    with pulling(deployment, Settlement(None), dispositions) as arrived:
        deployment.publish(b"x")
        times = [arrived.get(timeout=20)[0] for _ in dispositions]
    delays = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(delays) >= 2.5
    assert min(delays) <= 6


def test_a_nacked_message_comes_back_at_once(deployment):
    """A nacked message comes back at once."""
    with pulling(deployment, Settlement(None), [Nack(reason="test"), Ack(reason="test")]) as arrived:
        deployment.publish(b"x")
        first, _ = arrived.get(timeout=20)
        second, _ = arrived.get(timeout=20)
    assert second - first < 2


@pytest.mark.parametrize(
    ("attributes", "kept"),
    [
        ({"timeout": "1", "data": "x", "retry": "y"}, True),
        ({f"k{number}": "v" for number in range(100)}, False),
    ],
)
def test_a_rejected_message_is_quarantined_with_its_attributes_if_they_fit(
    deployment, quarantine, attributes, kept
):
    """A rejected message is quarantined with its attributes; those that exceed the limit are left out."""
    rejection = Reject(reason="body_not_json", detail="body: expected JSON")
    with pulling(deployment, Settlement(quarantine), [rejection]) as arrived:
        publish_raw(deployment, attributes)
        _, message = arrived.get(timeout=20)
    (found,) = deployment.quarantined(1)
    assert found.data == b"bad"
    origin = {
        "reason": "body_not_json",
        "sourceMessageId": message.message_id,
        "sourceSubscription": deployment.subscription,
    }
    expected = {**attributes, "detail": rejection.detail, **origin} if kept else origin
    assert dict(found.attributes) == expected


def publish_raw(deployment, attributes):
    """Publish with attributes that the client's `publish` would take for its own arguments."""
    publisher = Publisher()
    publisher.publish(deployment.topic, b"bad", attributes)
    publisher.close()


def test_a_missing_subscription_is_refused_and_a_present_one_is_not(deployment):
    """The probe refuses a missing subscription and accepts an existing one without more permissions."""
    with clients_find(deployment.settings()):
        subscriber = Subscriber(load_settings(Settings))
        subscriber.probe()
        subscriber.close()
    with clients_find(deployment.settings(PUBSUB_SUBSCRIPTION="nobody-made-this")):
        subscriber = Subscriber(load_settings(Settings))
        with pytest.raises(BackendRefused, match="NotFound"):
            subscriber.probe()
        subscriber.close()
