"""The checks of a subscription's settings and its topics, without a backend."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from google.protobuf import duration_pb2
from google.pubsub_v1.types import Subscription

from daemon.cli.doctor.checks.pubsub import (
    dead_letter_rights,
    dead_letter_topic_verdict,
    quarantine_verdict,
    subscription_verdicts,
)
from daemon.cli.doctor.results import Status
from daemon.subscription.admin import DeadLetterPolicy, RetryPolicy, SubscriptionFacts, TopicFacts

PATH = "projects/p/subscriptions/charts"
TOPIC = "projects/p/topics/steps"
LETTERS = "projects/p/topics/letters"
GOOD = SubscriptionFacts(
    path=PATH,
    topic=TOPIC,
    ack_deadline_seconds=60,
    retry=RetryPolicy(minimum_seconds=10, maximum_seconds=600),
    dead_letter=DeadLetterPolicy(topic=LETTERS, max_delivery_attempts=20),
    expires_after_seconds=math.inf,
)


def problems(results):
    """Return the results that are not ok, by check."""
    return {found.check: found for found in results if found.status is not Status.OK}


def test_a_correct_subscription_has_no_problems():
    """A correct subscription has no problems, and its values are shown."""
    results = subscription_verdicts(GOOD)
    assert problems(results) == {}
    text = " ".join(found.summary for found in results)
    for value in ("charts on topics/steps of projects/p", "60 s", "10 s to 600 s", "20 deliveries", LETTERS):
        assert value in text


@pytest.mark.parametrize(
    ("change", "check", "status", "text", "fix"),
    [
        ({"topic": "_deleted-topic_"}, "subscription", "failure", "deleted", "create it again"),
        ({"is_detached": True}, "subscription", "failure", "detached", "create it again"),
        ({"delivers_elsewhere": True}, "subscription", "failure", "can't be pulled", "--push-endpoint=''"),
        ({"ack_deadline_seconds": 29}, "ack-deadline", "warning", "29 s", "--ack-deadline=60"),
        ({"retry": None}, "retry-policy", "warning", "none", "--min-retry-delay=10s --max-retry-delay=600s"),
        (
            {"retry": RetryPolicy(minimum_seconds=4.9, maximum_seconds=16)},
            "retry-policy",
            "warning",
            "4.9 s to 16 s",
            "--min-retry-delay=10s",
        ),
        (
            {"dead_letter": DeadLetterPolicy(topic=LETTERS, max_delivery_attempts=19)},
            "dead-letter",
            "failure",
            "19 deliveries",
            f"--dead-letter-topic={LETTERS} --max-delivery-attempts=20",
        ),
        ({"is_ordered": True}, "ordering", "warning", "on", "without --enable-message-ordering"),
        ({"is_exactly_once": True}, "exactly-once", "warning", "on", "--no-enable-exactly-once-delivery"),
        ({"expires_after_seconds": 31 * 86400}, "expiration", "warning", "31 days", "never"),
        ({"expires_after_seconds": None}, "expiration", "not_checkable", "not send", ""),
    ],
)
def test_each_bad_setting_has_its_own_line_and_fix(change, check, status, text, fix):
    """Each bad setting has its own line and fix and changes no other line."""
    found = problems(subscription_verdicts(replace(GOOD, **change)))
    assert set(found) == {f"pubsub.{check}"}
    (result,) = found.values()
    assert result.status == status
    assert text in result.summary
    assert fix in result.fix
    assert result.fix == "" or PATH in result.fix


def test_a_subscription_may_do_without_a_dead_letter_policy():
    """Without a dead-letter policy messages are retried, and rejected ones go to the quarantine."""
    assert problems(subscription_verdicts(replace(GOOD, dead_letter=None))) == {}


def test_the_facts_are_those_of_pubsub():
    """The facts come from Pub/Sub; a missing policy differs from one with default bounds."""
    bare = Subscription(name=PATH, topic=TOPIC, ack_deadline_seconds=10)
    assert SubscriptionFacts.of(bare) == SubscriptionFacts(path=PATH, topic=TOPIC, ack_deadline_seconds=10)
    full = Subscription(
        name=PATH,
        topic=TOPIC,
        ack_deadline_seconds=60,
        retry_policy={"minimum_backoff": duration_pb2.Duration(seconds=0)},
        dead_letter_policy={"dead_letter_topic": LETTERS},
        enable_message_ordering=True,
        enable_exactly_once_delivery=True,
        detached=True,
        push_config={"push_endpoint": "https://example.com"},
        filter='attributes.a = "b"',
        expiration_policy={"ttl": duration_pb2.Duration(seconds=86400)},
    )
    assert SubscriptionFacts.of(full) == SubscriptionFacts(
        path=PATH,
        topic=TOPIC,
        ack_deadline_seconds=60,
        retry=RetryPolicy(minimum_seconds=0, maximum_seconds=600),
        dead_letter=DeadLetterPolicy(topic=LETTERS, max_delivery_attempts=5),
        is_ordered=True,
        is_exactly_once=True,
        is_detached=True,
        delivers_elsewhere=True,
        filter='attributes.a = "b"',
        expires_after_seconds=86400,
    )
    assert SubscriptionFacts.of(Subscription(expiration_policy={})).expires_after_seconds == math.inf


@pytest.mark.parametrize(
    ("exists", "subscriptions", "status", "text"),
    [
        (True, 1, "ok", "1 subscription"),
        (True, 0, "failure", "no subscription"),
        (False, None, "failure", "does not exist"),
        (None, None, "not_checkable", "may not look"),
        (True, None, "not_checkable", "may not look"),
    ],
)
def test_dead_letters_need_a_topic_with_a_subscription(exists, subscriptions, status, text):
    """The dead-letter topic needs a subscription, without which its messages are lost."""
    topic = TopicFacts(path=LETTERS, exists=exists, subscriptions=subscriptions)
    found = dead_letter_topic_verdict(topic)
    assert (found.check, found.status) == ("pubsub.dead-letter-topic", status)
    assert text in found.summary


def test_the_rights_of_pubsub_itself_are_named_and_not_judged():
    """The rights of Pub/Sub's agent are named but not checked, because only Pub/Sub can see them."""
    rights = dead_letter_rights(LETTERS, PATH)
    assert (rights.check, rights.status) == ("pubsub.dead-letter-rights", "not_checkable")
    assert LETTERS in rights.fix
    assert PATH in rights.fix


@pytest.mark.parametrize(
    ("exists", "may_publish", "status", "text"),
    [
        (True, True, "ok", LETTERS),
        (True, None, "ok", "not checkable"),
        (None, True, "ok", LETTERS),
        (None, None, "not_checkable", "may not look"),
        (False, None, "failure", "does not exist"),
        (True, False, "failure", "may not publish"),
        (None, False, "failure", "may not publish"),
    ],
)
def test_the_quarantine_needs_a_topic_and_the_right_to_publish(exists, may_publish, status, text):
    """The quarantine needs a topic and the right to publish, as far as both can be checked."""
    found = quarantine_verdict(TopicFacts(path=LETTERS, exists=exists, may_publish=may_publish))
    assert (found.check, found.status) == ("pubsub.quarantine-topic", status)
    assert text in found.summary


@pytest.mark.parametrize(("subscriptions", "status"), [(0, "warning"), (1, "ok"), (None, "ok")])
def test_a_quarantine_without_a_subscription_is_a_warning(subscriptions, status):
    """A quarantine without a subscription gives a warning, because its messages are lost."""
    found = quarantine_verdict(
        TopicFacts(path=LETTERS, exists=True, subscriptions=subscriptions, may_publish=True)
    )
    assert found.status == status
    assert ("subscriptions create" in (found.fix or "")) is (status == "warning")
