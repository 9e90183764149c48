"""Settings of topics and subscriptions: updates by mask, bounds, pages of lists, detaching.

Where the official emulator differs from Google Cloud the case says so.
"""

from __future__ import annotations

import uuid

import pytest
from google.api_core import exceptions
from google.protobuf import duration_pb2, field_mask_pb2

from tests.support.cloud.clouds import PROJECT

pytestmark = pytest.mark.serves("UpdateSubscription")


def _seconds(number):
    return duration_pb2.Duration(seconds=number)


def _update(channel, *paths, **settings):
    """Update the subscription; without paths its mask names the given settings."""
    return channel.subscriber.update_subscription(
        request={
            "subscription": {"name": channel.subscription, **settings},
            "update_mask": field_mask_pb2.FieldMask(paths=paths or settings),
        }
    )


def _update_topic(channel, *paths, **settings):
    return channel.publisher.update_topic(
        request={
            "topic": {"name": channel.topic, **settings},
            "update_mask": field_mask_pb2.FieldMask(paths=paths or settings),
        }
    )


@pytest.mark.serves("CreateTopic", "Topic.labels", "Topic.message_retention_duration")
def test_a_topic_returns_its_settings(publisher):
    """A topic returns its labels and how long it keeps messages."""
    name = publisher.topic_path(PROJECT, f"t{uuid.uuid4().hex}")
    settings = {"labels": {"team": "charts"}, "message_retention_duration": _seconds(900)}
    publisher.create_topic(request={"name": name, **settings})
    found = publisher.get_topic(topic=name)
    assert (dict(found.labels), found.message_retention_duration.total_seconds()) == ({"team": "charts"}, 900)


@pytest.mark.serves("UpdateTopic", "Topic.message_retention_duration")
def test_a_topic_is_updated_by_mask(channel):
    """An update of a topic changes only what its mask names, within its bounds."""
    changed = _update_topic(channel, "message_retention_duration", message_retention_duration=_seconds(600))
    assert changed.message_retention_duration.total_seconds() == 600
    assert channel.publisher.get_topic(topic=channel.topic) == changed
    for seconds in (599, 31 * 86_400 + 1):
        with pytest.raises(exceptions.InvalidArgument, match="message_retention_duration out of bounds"):
            _update_topic(channel, message_retention_duration=_seconds(seconds))


@pytest.mark.serves("UpdateTopic", "UpdateSubscription")
def test_masks_that_make_no_sense_are_refused(channel):
    """A mask must not be empty; each path names a whole field that can be changed, in snake case."""
    for paths in ([], ["foo"], ["name"], ["ack_deadline_seconds", "foo"]):
        with pytest.raises(exceptions.InvalidArgument, match="update_mask"):
            channel.publisher.update_topic(
                request={
                    "topic": {"name": channel.topic},
                    "update_mask": field_mask_pb2.FieldMask(paths=paths),
                }
            )
    for paths in (
        [],
        ["foo"],
        ["topic"],
        ["enable_message_ordering"],
        ["ackDeadlineSeconds"],
        ["retry_policy.minimum_backoff"],
    ):
        with pytest.raises(exceptions.InvalidArgument, match="update_mask"):
            channel.subscriber.update_subscription(
                request={
                    "subscription": {"name": channel.subscription},
                    "update_mask": field_mask_pb2.FieldMask(paths=paths),
                }
            )
    assert channel.subscriber.get_subscription(subscription=channel.subscription).ack_deadline_seconds == 10


def test_an_update_without_a_value_sets_the_default(channel):
    """A field that the mask names and the request leaves out gets its default."""
    changed = _update(channel, ack_deadline_seconds=33, retain_acked_messages=True)
    assert (changed.ack_deadline_seconds, changed.retain_acked_messages) == (33, True)
    changed = _update(channel, "ack_deadline_seconds", "retain_acked_messages")
    assert (changed.ack_deadline_seconds, changed.retain_acked_messages) == (10, False)


@pytest.mark.serves("UpdateTopic", "UpdateSubscription", "Topic.labels", "Subscription.labels")
def test_labels_are_updated(channel, on_official):
    """Labels are replaced as a whole. The official emulator refuses to change them."""
    updates = (
        lambda labels: _update_topic(channel, labels=labels),
        lambda labels: _update(channel, labels=labels),
    )
    for update in updates:
        if on_official:
            with pytest.raises(exceptions.InvalidArgument):
                update({"a": "1"})
        else:
            assert dict(update({"a": "1", "b": "2"}).labels) == {"a": "1", "b": "2"}
            assert dict(update({"b": "3"}).labels) == {"b": "3"}


@pytest.mark.serves("Subscription.labels", "Subscription.expiration_policy", "Subscription.filter")
def test_a_subscription_returns_its_settings(new_channel):
    """A subscription returns labels, filter and expiration as set. Nothing expires while the process runs."""
    settings = {
        "labels": {"team": "charts"},
        "filter": 'attributes.kind = "a"',
        "expiration_policy": {"ttl": _seconds(86_400)},
    }
    channel = new_channel(**settings)
    found = channel.subscriber.get_subscription(subscription=channel.subscription)
    assert (dict(found.labels), found.filter) == ({"team": "charts"}, 'attributes.kind = "a"')
    assert found.expiration_policy.ttl.days == 1


@pytest.mark.serves("Subscription.filter")
def test_a_filter_chooses_messages(new_channel, on_official):
    """Only messages that match the filter arrive. The official emulator delivers all."""
    channel = new_channel(filter='attributes.kind = "a"')
    channel.publish(b"other", kind="b")
    channel.publish(b"wanted", kind="a")
    expected = [b"other", b"wanted"] if on_official else [b"wanted"]
    received = channel.pull(most=10)
    while len(received) < len(expected):
        received += channel.pull(most=10)
    assert sorted(one.message.data for one in received) == expected
    with pytest.raises(exceptions.InvalidArgument):
        _update(channel, filter='attributes.kind = "b"')


@pytest.mark.serves("Subscription.message_retention_duration")
def test_retention_has_bounds(new_channel):
    """A subscription keeps messages for ten minutes to seven days."""
    for seconds in (599, 7 * 86_400 + 1):
        with pytest.raises(exceptions.InvalidArgument, match="message_retention_duration out of bounds"):
            new_channel(message_retention_duration=_seconds(seconds))


@pytest.mark.serves("Subscription.retry_policy")
def test_a_retry_policy_has_bounds_and_defaults(new_channel):
    """Backoffs are 0 to 600 s, 10 and 600 by default, and the maximum is not below the minimum."""
    channel = new_channel(retry_policy={})
    policy = channel.subscriber.get_subscription(subscription=channel.subscription).retry_policy
    assert (policy.minimum_backoff.total_seconds(), policy.maximum_backoff.total_seconds()) == (10, 600)
    wrong = [
        ("minimum_backoff", 601, 601),
        ("minimum_backoff", -1, 10),
        ("maximum_backoff", 10, 601),
        ("maximum_backoff", 10, 5),
    ]
    for field, minimum, maximum in wrong:
        backoff = {"minimum_backoff": _seconds(minimum), "maximum_backoff": _seconds(maximum)}
        with pytest.raises(exceptions.InvalidArgument, match=field):
            new_channel(retry_policy=backoff)


@pytest.mark.serves("Subscription.dead_letter_policy")
def test_dead_letters_take_five_attempts_by_default(new_channel):
    """Without a number a message has five attempts; more than 100 are refused."""
    dead = new_channel()
    channel = new_channel(dead_letter_policy={"dead_letter_topic": dead.topic})
    found = channel.subscriber.get_subscription(subscription=channel.subscription)
    assert found.dead_letter_policy.max_delivery_attempts == 5
    with pytest.raises(exceptions.OutOfRange, match="max_delivery_attempts"):
        new_channel(dead_letter_policy={"dead_letter_topic": dead.topic, "max_delivery_attempts": 101})


@pytest.mark.serves("ModifyPushConfig")
def test_an_empty_push_config_asks_for_pull(channel):
    """An empty push configuration asks for pull, which is what a subscription does anyway."""
    channel.subscriber.modify_push_config(subscription=channel.subscription, push_config={})
    _update(channel, "push_config")
    channel.publish()
    assert channel.pull()


@pytest.mark.serves("ListTopics", "ListSubscriptions", "ListTopicSubscriptions")
def test_lists_come_in_pages(channel, new_channel):
    """A list has at most `page_size` entries, and its token leads to the next page."""
    new_channel()
    names = [f"{channel.subscription}-{number}" for number in range(2)]
    for name in names:
        channel.subscriber.create_subscription(name=name, topic=channel.topic)
    request = {"topic": channel.topic, "page_size": 2}
    pages = [
        list(page.subscriptions) for page in channel.publisher.list_topic_subscriptions(request=request).pages
    ]
    assert pages == [[channel.subscription, names[0]], [names[1]]]
    request = {"project": f"projects/{PROJECT}", "page_size": 1}
    topics = [len(page.topics) for page in channel.publisher.list_topics(request=request).pages]
    found = [len(page.subscriptions) for page in channel.subscriber.list_subscriptions(request=request).pages]
    assert set(topics) == set(found) == {1}


@pytest.mark.serves("DetachSubscription")
def test_a_detached_subscription_loses_its_messages(channel, on_official):
    """A detached subscription has no messages and gets no more. The official emulator does not detach."""
    channel.publish()
    request = {"subscription": channel.subscription}
    if on_official:
        with pytest.raises(exceptions.MethodNotImplemented):
            channel.publisher.detach_subscription(request=request)
        return
    channel.publisher.detach_subscription(request=request)
    assert channel.subscriber.get_subscription(subscription=channel.subscription).detached
    assert list(channel.publisher.list_topic_subscriptions(topic=channel.topic)) == []
    with pytest.raises(exceptions.FailedPrecondition, match="detached"):
        channel.pull()


@pytest.mark.serves("CreateTopic", "GetTopic", "ListTopics")
def test_malformed_names_are_refused_by_name(publisher, subscriber):
    """A name that can't exist is refused with the name, in every call."""
    calls = [
        lambda: publisher.create_topic(name="t"),
        lambda: publisher.get_topic(topic="t"),
        lambda: publisher.publish("t", b"x").result(timeout=10),
        lambda: subscriber.create_subscription(name=subscriber.subscription_path(PROJECT, "sub"), topic="t"),
    ]
    for call in calls:
        with pytest.raises(exceptions.InvalidArgument, match=r"Invalid \[topics\] name: \(name=t\)"):
            call()
