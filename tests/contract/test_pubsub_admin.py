"""Topics, subscriptions and publishing: names, errors, settings."""

from __future__ import annotations

import uuid

import pytest
from google.api_core import exceptions
from google.protobuf import duration_pb2
from google.pubsub_v1 import PublisherClient

from tests.support.cloud.clouds import PROJECT

pytestmark = pytest.mark.serves("CreateSubscription")


@pytest.fixture
def missing(publisher, subscriber):
    """Return the names of a topic and a subscription that do not exist."""
    name = f"missing-{uuid.uuid4().hex}"
    return publisher.topic_path(PROJECT, name), subscriber.subscription_path(PROJECT, name)


@pytest.mark.serves("CreateTopic", "CreateSubscription")
def test_creating_what_exists_is_refused(channel):
    """Creating an existing topic or subscription fails with AlreadyExists."""
    with pytest.raises(exceptions.AlreadyExists):
        channel.publisher.create_topic(name=channel.topic)
    with pytest.raises(exceptions.AlreadyExists):
        channel.subscriber.create_subscription(name=channel.subscription, topic=channel.topic)


@pytest.mark.parametrize("name", ["ab", "1abc", "google-topic", "white space", "a" * 256])
@pytest.mark.serves("CreateTopic", "CreateSubscription")
def test_ids_outside_the_rules_are_refused(publisher, subscriber, channel, name):
    """Ids must have 3 to 255 characters, begin with a letter and not with `goog`."""
    with pytest.raises(exceptions.InvalidArgument):
        publisher.create_topic(name=publisher.topic_path(PROJECT, name))
    with pytest.raises(exceptions.InvalidArgument):
        subscriber.create_subscription(name=subscriber.subscription_path(PROJECT, name), topic=channel.topic)


@pytest.mark.serves("GetTopic", "DeleteTopic")
def test_a_missing_topic_is_not_found(publisher, subscriber, missing):
    """Every call on a missing topic fails with NotFound."""
    topic, subscription = missing
    calls = [
        lambda: publisher.get_topic(topic=topic),
        lambda: publisher.delete_topic(topic=topic),
        lambda: publisher.publish(topic, b"x").result(timeout=10),
        lambda: subscriber.create_subscription(name=subscription, topic=topic),
    ]
    for call in calls:
        with pytest.raises(exceptions.NotFound):
            call()


@pytest.mark.serves("GetSubscription", "DeleteSubscription")
def test_a_missing_subscription_is_not_found(subscriber, missing):
    """Every call on a missing subscription fails with NotFound."""
    _, subscription = missing
    calls = [
        lambda: subscriber.get_subscription(subscription=subscription),
        lambda: subscriber.delete_subscription(subscription=subscription),
        lambda: subscriber.pull(subscription=subscription, max_messages=1, timeout=10),
        lambda: subscriber.acknowledge(subscription=subscription, ack_ids=["x"]),
        lambda: subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=["x"], ack_deadline_seconds=10
        ),
    ]
    for call in calls:
        with pytest.raises(exceptions.NotFound):
            call()


@pytest.mark.serves("Publish")
def test_nothing_to_publish_is_refused(channel):
    """A publish needs a message with data or attributes."""
    for messages in ([], [{}], [{"data": b"x"}, {}]):
        with pytest.raises(exceptions.InvalidArgument):
            PublisherClient.publish(channel.publisher, topic=channel.topic, messages=messages)
    assert channel.publish(b"", runId="r")
    assert channel.pull()[0].message.attributes == {"runId": "r"}


@pytest.mark.serves("Publish")
def test_a_message_arrives_as_published(channel):
    """A message arrives with its data, attributes, id and publish time."""
    message_id = channel.publish(b"\x00\xff", runId="r:1", stepId="é")
    (received,) = channel.pull()
    message = received.message
    assert (message.data, message.attributes) == (b"\x00\xff", {"runId": "r:1", "stepId": "é"})
    assert message.message_id == message_id
    assert message.publish_time.year >= 2024


@pytest.mark.serves("Publish")
def test_ids_of_messages_differ(channel):
    """Every message has its own id."""
    ids = [channel.publish() for _ in range(5)]
    assert len(set(ids)) == 5


@pytest.mark.serves("CreateSubscription", "ListTopicSubscriptions")
def test_every_subscription_gets_its_copy(channel, subscriber):
    """Every subscription receives the messages published after its creation."""
    channel.publish(b"before")
    second = subscriber.subscription_path(PROJECT, f"s{uuid.uuid4().hex}")
    subscriber.create_subscription(name=second, topic=channel.topic)
    channel.publish(b"after")
    other = type(channel)(
        publisher=channel.publisher, subscriber=subscriber, topic=channel.topic, subscription=second
    )
    assert [received.message.data for received in other.pull(most=10)] == [b"after"]
    assert not other.pull(wait=False)
    listed = channel.publisher.list_topic_subscriptions(topic=channel.topic)
    assert sorted(listed) == sorted([channel.subscription, second])


@pytest.mark.serves(
    "Subscription.ack_deadline_seconds", "Subscription.retry_policy", "Subscription.dead_letter_policy"
)
def test_settings_are_returned_as_set(new_channel, subscriber):
    """A subscription returns the deadline, retry policy and dead-letter policy that were set."""
    dead = new_channel()
    policy = {"dead_letter_topic": dead.topic, "max_delivery_attempts": 20}
    backoff = {
        "minimum_backoff": duration_pb2.Duration(seconds=4),
        "maximum_backoff": duration_pb2.Duration(seconds=16),
    }
    channel = new_channel(ack_deadline_seconds=42, dead_letter_policy=policy, retry_policy=backoff)
    described = subscriber.get_subscription(subscription=channel.subscription)
    assert (described.topic, described.ack_deadline_seconds) == (channel.topic, 42)
    assert described.dead_letter_policy.dead_letter_topic == dead.topic
    assert described.dead_letter_policy.max_delivery_attempts == 20
    assert described.retry_policy.minimum_backoff.total_seconds() == 4
    assert described.retry_policy.maximum_backoff.total_seconds() == 16


def test_defaults(channel):
    """The defaults are a deadline of ten seconds, no policies and seven days of retention."""
    described = channel.subscriber.get_subscription(subscription=channel.subscription)
    assert described.ack_deadline_seconds == 10
    assert described.message_retention_duration.days == 7
    assert not described.retry_policy
    assert not described.dead_letter_policy


def test_settings_out_of_bounds_are_refused(new_channel):
    """Deadlines over 600 s, under five attempts and a missing dead-letter topic are refused."""
    dead = new_channel()
    with pytest.raises(exceptions.InvalidArgument):
        new_channel(ack_deadline_seconds=601)
    with pytest.raises(exceptions.OutOfRange):
        new_channel(dead_letter_policy={"dead_letter_topic": dead.topic, "max_delivery_attempts": 4})
    with pytest.raises(exceptions.NotFound):
        new_channel(
            dead_letter_policy={"dead_letter_topic": f"{dead.topic}-gone", "max_delivery_attempts": 5}
        )


@pytest.mark.serves("UpdateSubscription")
def test_settings_are_updated_by_mask(channel, new_channel):
    """An update changes only the settings that its mask names."""
    dead = new_channel()
    wanted = {
        "name": channel.subscription,
        "ack_deadline_seconds": 33,
        "dead_letter_policy": {"dead_letter_topic": dead.topic, "max_delivery_attempts": 7},
    }
    channel.subscriber.update_subscription(
        request={"subscription": wanted, "update_mask": {"paths": ["dead_letter_policy"]}}
    )
    described = channel.subscriber.get_subscription(subscription=channel.subscription)
    assert described.dead_letter_policy.max_delivery_attempts == 7
    assert described.ack_deadline_seconds == 10
    with pytest.raises(exceptions.InvalidArgument):
        channel.subscriber.update_subscription(
            request={"subscription": wanted, "update_mask": {"paths": ["topic"]}}
        )


@pytest.mark.serves("DeleteTopic")
def test_a_deleted_topic_leaves_its_subscription(channel):
    """When its topic is deleted a subscription keeps its messages and shows `_deleted-topic_`."""
    channel.publish(b"kept")
    channel.publisher.delete_topic(topic=channel.topic)
    described = channel.subscriber.get_subscription(subscription=channel.subscription)
    assert described.topic == "_deleted-topic_"
    assert channel.pull()[0].message.data == b"kept"


@pytest.mark.serves("ListTopics", "ListSubscriptions")
def test_lists(channel):
    """Topics and subscriptions of the project are listed."""
    project = f"projects/{PROJECT}"
    assert channel.topic in [topic.name for topic in channel.publisher.list_topics(project=project)]
    names = [found.name for found in channel.subscriber.list_subscriptions(project=project)]
    assert channel.subscription in names
