"""What a quarantined message or a dead letter says of the original."""

from __future__ import annotations

import pytest
from google.pubsub_v1.types import PubsubMessage

from daemon.subscription.quarantined import QuarantinedMessage, replayed_by, with_copies, with_operator

ORIGIN = {"sourceMessageId": "7", "sourceSubscription": "projects/p/subscriptions/flow"}


def stored(data=b"", **attributes):
    """Return a message as it is read."""
    message = PubsubMessage(message_id="1", data=data, attributes=attributes)
    return QuarantinedMessage.of(PubsubMessage.pb(message))


@pytest.mark.parametrize(
    "original",
    [
        {},
        {"runId": "r", "stepId": "s"},
        {"reason": "mine", "detail": "mine too", "sourceMessageId": "0", "other": "x"},
    ],
)
def test_the_original_attributes_come_back(original):
    """What the quarantine adds is taken away, and originals of the same names are restored."""
    message = stored(**{**with_copies(original), "reason": "not_ready", "detail": "why", **ORIGIN})
    assert message.attributes == original
    assert (message.reason, message.detail) == ("not_ready", "why")
    assert message.source_message_id == "7"
    assert message.source_subscription == "projects/p/subscriptions/flow"


def test_a_dead_letter_names_its_subscription_and_keeps_its_own_reason():
    """The attributes of Pub/Sub are taken away, an attribute `reason` of the publisher stays."""
    letter = "CloudPubSubDeadLetterSource"
    message = stored(
        b'{"runId": "r1", "stepId": "s1"}',
        reason="mine",
        **{
            f"{letter}Subscription": "flow",
            f"{letter}SubscriptionProject": "p",
            f"{letter}DeliveryCount": "20",
            f"{letter}TopicPublishTime": "2025-12-15T10:25:30Z",
        },
    )
    assert message.attributes == {"reason": "mine"}
    assert (message.reason, message.deliveries) == (None, 20)
    assert message.source_subscription == "projects/p/subscriptions/flow"
    assert (message.run_id, message.step_id) == ("r1", "s1")


def test_a_message_without_what_it_was_is_empty():
    """Of a message whose attributes did not fit nothing is left, and none can be sent."""
    assert stored(reason="x", **ORIGIN).is_empty
    assert not stored(b"x", reason="x", **ORIGIN).is_empty


@pytest.mark.parametrize("name", ["", "flow", "projects/p/topics/flow", "projects//subscriptions/x"])
def test_a_source_that_is_no_path_is_not_used(name):
    """Another text than a subscription's path names no source."""
    message = stored(reason="x", sourceMessageId="1", sourceSubscription=name)
    assert message.source_subscription is None
    assert message.run_id is None


def test_the_operator_is_named_where_there_is_room():
    """A message can have 100 attributes. The last operator counts, and the log shows a printable name."""
    full = {f"a{number}": "" for number in range(100)}
    assert with_operator(full, "ann@desk") == full
    named = with_operator({"a": "b", "replayedBy": "bob@desk"}, "ann\n@desk")
    assert named == {"a": "b", "replayedBy": "ann\n@desk"}
    assert replayed_by(named) == "ann\\n@desk"
    assert replayed_by({"a": "b"}) is None
