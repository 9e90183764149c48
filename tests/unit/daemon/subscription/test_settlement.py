"""Settlement, quarantine, delivery: each delivery ends exactly once and never with an error."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import grpc
import pytest
from google.api_core import exceptions as google_errors
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from daemon.handling.disposition import Ack, Defer, Nack, Reject
from daemon.lifecycle.drain import Drain
from daemon.subscription.callback import Delivery, Settlement
from daemon.subscription.publisher import Publisher
from daemon.subscription.quarantine import Quarantine
from localcloud import Fault
from tests.support.cloud.clouds import PROJECT, clients_find

REJECT = Reject(reason="run_id_invalid", detail="runId: expected something else")
SUBSCRIPTION = f"projects/{PROJECT}/subscriptions/charts-sub"
TOPIC = f"projects/{PROJECT}/topics/quarantine"
ORIGIN = {"reason": "run_id_invalid", "sourceMessageId": "m1", "sourceSubscription": SUBSCRIPTION}


class Message:
    """A message that notes its calls."""

    def __init__(self, *, data=b"{}", attributes=None, attempt=None):
        self.message_id = "m1"
        self.data = data
        self.attributes = attributes or {}
        self.publish_time = datetime(2025, 12, 15, tzinfo=UTC)
        self.delivery_attempt = attempt
        self.done = []

    def ack(self):
        """Note the call."""
        self.done.append("ack")

    def nack(self):
        """Note the call."""
        self.done.append("nack")

    def drop(self):
        """Note the call."""
        self.done.append("drop")

    def modify_ack_deadline(self, seconds):
        """Note the call."""
        self.done.append(("modack", seconds))


class Topic:
    """A publisher that stores its messages, or fails with each given error once."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.published = []

    def publish(self, topic, data, attributes):
        """Store the message or fail."""
        assert topic == TOPIC
        if self.errors:
            raise self.errors.pop(0)
        self.published.append((data, dict(attributes)))
        return "1"


def _quarantine(publisher):
    return Quarantine(publisher=publisher, topic=TOPIC, subscription=SUBSCRIPTION)


class TestSettling:
    """One call of the client for each disposition."""

    @pytest.mark.parametrize(
        ("disposition", "done"),
        [
            (Ack(reason="r"), ["ack"]),
            (Nack(reason="r"), ["nack"]),
            (Defer(delay_seconds=20, reason="r"), [("modack", 20), "drop"]),
            (Defer(delay_seconds=20.2, reason="r"), [("modack", 21), "drop"]),
            (Defer(delay_seconds=0, reason="r"), [("modack", 1), "drop"]),
            (Defer(delay_seconds=9999, reason="r"), [("modack", 600), "drop"]),
        ],
    )
    def test_each_disposition_is_carried_out_once(self, disposition, done):
        """Each disposition is one call; a deferral sets a new deadline and drops the message."""
        message = Message()
        Settlement(None).settle(message, disposition)
        assert message.done == done

    def test_settling_is_logged(self, log_lines):
        """Settling is logged with disposition and reason."""
        Settlement(None).settle(Message(), Defer(delay_seconds=12.3456, reason="pending"))
        (line,) = log_lines()
        assert (line["event"], line["disposition"], line["reason"]) == ("message_settled", "defer", "pending")
        assert line["delaySeconds"] == 12.346


class TestRejection:
    """Rejected messages go to the quarantine, else to the dead-letter policy, else to the log."""

    def test_a_rejected_message_is_acked_once_it_is_published(self):
        """A rejected message is published with data, attributes and reason, and then acked."""
        topic, message = Topic(), Message(data=b"\xff", attributes={"a": "b"})
        Settlement(_quarantine(topic)).settle(message, REJECT)
        assert topic.published == [(b"\xff", {"a": "b", "detail": REJECT.detail} | ORIGIN)]
        assert message.done == ["ack"]

    @pytest.mark.parametrize(
        ("error", "event"),
        [
            (google_errors.ServiceUnavailable("x"), "backend_unavailable"),
            (google_errors.NotFound("x"), "backend_refused"),
            (google_errors.RetryError("x", None), "backend_unavailable"),
        ],
    )
    def test_a_failing_quarantine_defers_the_message(self, error, event, log_lines):
        """A failing quarantine defers the message."""
        message = Message()
        Settlement(_quarantine(Topic(error))).settle(message, REJECT)
        (kind, seconds), drop = message.done
        assert (kind, drop) == ("modack", "drop")
        assert 10 <= seconds <= 60
        assert [line["event"] for line in log_lines()] == [
            "message_rejected",
            event,
            "message_settled",
        ]

    def test_after_a_failure_the_next_messages_don_t_wait_for_the_same_timeout(self):
        """After a failure the next messages do not wait for the same timeout and hold no threads."""
        topic = Topic(google_errors.RetryError("x", None))
        settlement = Settlement(_quarantine(topic))
        first, second = Message(), Message()
        settlement.settle(first, REJECT)
        settlement.settle(second, REJECT)
        assert first.done[0][0] == second.done[0][0] == "modack"
        assert topic.published == []

    def test_one_that_the_topic_refuses_is_logged_whole_and_acked(self, log_lines):
        """A message that the topic refuses for good is logged completely and acked."""
        message = Message(data=b"big")
        refusal = google_errors.InvalidArgument("too large")
        Settlement(_quarantine(Topic(refusal, refusal))).settle(message, REJECT)
        assert message.done == ["ack"]
        (line,) = [
            line for line in log_lines() if line["event"] == "message_rejected" and "dataBase64" in line
        ]
        assert base64.b64decode(line["dataBase64"]) == b"big"

    def test_without_a_topic_a_dead_letter_policy_gets_it(self):
        """Without a topic, a delivery attempt shows a dead-letter policy, which gets the message."""
        message = Message(attempt=3)
        Settlement(None).settle(message, REJECT)
        assert message.done == ["nack"]

    def test_without_either_it_is_logged_whole_and_acked(self, log_lines):
        """Without topic and policy the message is logged completely as ERROR and acked."""
        message = Message(data=b"\xff\x00", attributes={"a": "b"})
        Settlement(None).settle(message, REJECT)
        assert message.done == ["ack"]
        (whole,) = [line for line in log_lines() if line["severity"] == "ERROR"]
        assert base64.b64decode(whole["dataBase64"]) == b"\xff\x00"
        assert (whole["attributes"], whole["event"]) == ({"a": "b"}, "message_rejected")

    def test_a_rejection_is_logged_with_its_reason(self, log_lines):
        """A rejection is logged with its reason, whatever happens to it."""
        Settlement(_quarantine(Topic())).settle(Message(), REJECT)
        line = log_lines()[0]
        assert (line["event"], line["reason"], line["detail"]) == (
            "message_rejected",
            "run_id_invalid",
            REJECT.detail,
        )


class TestQuarantine:
    """The quarantine's copy of a rejected message."""

    def _published(self, attributes, *, rejection=REJECT, errors=()):
        topic = Topic(*errors)
        _quarantine(topic).publish(message_id="m1", data=b"d", attributes=attributes, rejection=rejection)
        ((data, sent),) = topic.published
        assert data == b"d"
        return sent

    @pytest.mark.parametrize(
        "attributes",
        [
            {f"k{i}": "v" for i in range(98)},
            {"k" * 257: "v"},
            {"é" * 129: "v"},
            {"k": "v" * 1025},
            {"k": "é" * 513},
        ],
    )
    def test_attributes_that_don_t_fit_are_left_out(self, attributes):
        """Attributes beyond Pub/Sub's limits are left out; data and our three attributes stay."""
        assert self._published(attributes) == ORIGIN

    @pytest.mark.parametrize(
        "attributes", [{f"k{i}": "v" for i in range(96)}, {"k" * 256: "v" * 1024}, {"é" * 128: "é" * 512}]
    )
    def test_attributes_that_just_fit_are_kept(self, attributes):
        """Attributes that just fit are kept, with the detail."""
        assert self._published(attributes) == attributes | ORIGIN | {"detail": REJECT.detail}

    def test_the_detail_is_the_first_to_go(self):
        """The detail is left out before the message's own attributes."""
        attributes = {f"k{i}": "v" for i in range(97)}
        assert self._published(attributes) == attributes | ORIGIN

    def test_the_original_s_own_detail_stays(self):
        """The message's own detail stays in place of ours, with a copy that marks it as theirs."""
        expected = {"detail": "theirs", "original.detail": "theirs"} | ORIGIN
        assert self._published({"detail": "theirs"}) == expected

    def test_an_original_that_is_replaced_is_kept_as_a_copy(self):
        """The message's own reason is replaced, and kept under another name."""
        published = self._published({"reason": "theirs"})
        assert (published["reason"], published["original.reason"]) == (ORIGIN["reason"], "theirs")

    def test_the_original_s_reason_is_replaced(self):
        """The message's own reason is replaced, because the contract defines that attribute."""
        assert self._published({"reason": "theirs"})["reason"] == "run_id_invalid"

    def test_a_long_detail_is_cut_at_a_character(self):
        """A long detail is cut to 1024 bytes at a character."""
        sent = self._published({}, rejection=Reject(reason="r", detail="é" * 1000))
        assert sent["detail"] == "é" * 512

    def test_attributes_that_pub_sub_refuses_are_left_out(self):
        """Attributes that Pub/Sub refuses, such as those beginning with `goog`, are left out."""
        assert self._published({"googA": "v"}, errors=[google_errors.InvalidArgument("goog")]) == ORIGIN

    @pytest.fixture
    def sub(self, cloud):
        """Return Google's subscriber on the quarantine topic of the embedded Pub/Sub."""
        with clients_find(cloud.environment()):
            publisher, subscriber = (
                Publisher(),
                SubscriberClient(transport=_transport(SubscriberGrpcTransport, cloud)),
            )
            admin = PublisherClient(transport=_transport(PublisherGrpcTransport, cloud))
        admin.create_topic(name=TOPIC)
        subscriber.create_subscription(name=SUBSCRIPTION, topic=TOPIC)
        yield publisher, subscriber
        publisher.close()
        subscriber.transport.close()
        admin.transport.close()

    def test_attributes_named_like_the_client_s_own_arguments_arrive(self, sub):
        """Attributes named like the client's arguments (`timeout`, `data`, `topic`) arrive."""
        publisher, subscriber = sub
        attributes = {"timeout": "soon", "data": "x", "topic": "y", "retry": "z", "ordering_key": "o"}
        _quarantine(publisher).publish(message_id="m1", data=b"\x00", attributes=attributes, rejection=REJECT)
        (received,) = subscriber.pull(subscription=SUBSCRIPTION, max_messages=1).received_messages
        assert dict(received.message.attributes) == attributes | ORIGIN | {"detail": REJECT.detail}
        assert received.message.data == b"\x00"

    def test_an_empty_message_can_be_published(self, sub):
        """An empty message can be published, because it has our attributes."""
        publisher, subscriber = sub
        _quarantine(publisher).publish(message_id="m1", data=b"", attributes={}, rejection=REJECT)
        (received,) = subscriber.pull(subscription=SUBSCRIPTION, max_messages=1).received_messages
        assert received.message.attributes["reason"] == "run_id_invalid"

    def test_a_refused_publish_raises_the_client_s_error(self, sub, cloud):
        """A refused publish raises the client's own error."""
        cloud.pubsub.faults.add(Fault(method="Publish", error="PERMISSION_DENIED"))
        with pytest.raises(google_errors.PermissionDenied):
            sub[0].publish(TOPIC, b"x", {})


def _transport(kind, cloud):
    return kind(channel=grpc.insecure_channel(cloud.pubsub.address))


class Handler:
    """A handler that returns one disposition, or raises."""

    def __init__(self, answer):
        self.answer = answer
        self.seen = []

    def handle(self, incoming):
        """Return the disposition."""
        self.seen.append(incoming)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class TestDelivery:
    """The callback of the stream."""

    def test_a_delivery_is_handled_and_settled(self):
        """A delivery is handled and settled; the handler gets it without the client's types."""
        handler, message = Handler(Ack(reason="r")), Message(data=b"d", attributes={"a": "b"}, attempt=2)
        Delivery(handler=handler, settlement=Settlement(None), drain=Drain())(message)
        (seen,) = handler.seen
        assert (seen.message_id, seen.data, seen.attributes, seen.delivery_attempt) == (
            "m1",
            b"d",
            {"a": "b"},
            2,
        )
        assert message.done == ["ack"]

    @pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), SystemExit(1), MemoryError()])
    def test_an_error_of_the_handler_is_caught(self, error, log_lines):
        """An error of the handler is caught: the message is left to its deadline, the stream continues."""
        message = Message()
        Delivery(handler=Handler(error), settlement=Settlement(None), drain=Drain())(message)
        assert message.done == ["drop"]
        (line,) = log_lines()
        assert (line["event"], line["messageId"]) == ("internal_error", "m1")

    def test_an_error_of_settling_is_caught(self, log_lines):
        """An unexpected error of settling is caught."""
        message = Message()
        settlement = Settlement(_quarantine(Topic(RuntimeError("unexpected"))))
        Delivery(handler=Handler(REJECT), settlement=settlement, drain=Drain())(message)
        assert message.done == ["drop"]
        assert log_lines()[-1]["event"] == "internal_error"

    @pytest.mark.parametrize("answer", [Ack(reason="r"), RuntimeError("x")])
    def test_a_delivery_counts_for_the_drain_until_it_is_settled(self, answer):
        """A delivery counts for the drain until it is settled, however it ended."""
        drain = Drain()
        delivery = Delivery(handler=Handler(answer), settlement=Settlement(None), drain=drain)
        delivery(Message())
        assert drain.wait_until_idle(0)

    def test_lines_about_a_delivery_carry_its_message_id(self, log_lines):
        """All log lines of a delivery carry its message id."""
        Delivery(handler=Handler(Ack(reason="r")), settlement=Settlement(None), drain=Drain())(Message())
        assert {line["messageId"] for line in log_lines()} == {"m1"}
