"""Answer the RPCs of Pub/Sub: publisher and subscriber."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import empty_pb2
from google.pubsub_v1.types import pubsub as types

from localcloud.grpc_server import GrpcService, Method, NotServed, Refused, invalid
from localcloud.pubsub import messages
from localcloud.pubsub.delivery import Window
from localcloud.pubsub.exactly_once import check_acks
from localcloud.pubsub.paging import name_of, page
from localcloud.pubsub.streams import Stream
from localcloud.pubsub.topics import Topics
from localcloud.pubsub.unserved import UNSERVED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from localcloud.pubsub.subscriptions import LiveSubscription

# A pull without messages returns an empty response after this time, within every client's deadline.
_PULL_WAIT_SECONDS = 20.0
_MAX_DEADLINE_SECONDS = 600


class PubsubService(GrpcService):
    """Pub/Sub with topics, subscriptions and messages in memory.

    Besides the RPCs, `calls` counts `Deliver` (delivered messages) and `Acked` (acknowledged messages).
    """

    name = "pubsub"
    supported_faults = frozenset({"drop", "duplicate"})
    pseudo_methods = frozenset({"Deliver"})
    unserved = UNSERVED

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self._topics = Topics()
        self._lock = threading.Lock()
        self._streams: set[Stream] = set()

    def unacked(self, subscription: str) -> int:
        """Return the unacknowledged messages of a subscription (full name): ready, delayed or leased."""
        return self._topics.subscription(subscription).unacked

    def leased(self, subscription: str) -> int:
        """Return the messages of a subscription (full name) that a receiver holds."""
        return self._topics.subscription(subscription).leased

    @property
    def open_streams(self) -> int:
        """Return the number of StreamingPull calls in progress."""
        with self._lock:
            return len(self._streams)

    def reset_streams(self, error: str = "UNAVAILABLE", message: str = "injected stream reset") -> int:
        """End all open streams with a gRPC status by name; return how many."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.abort(Refused(grpc.StatusCode[error], message))
        return len(streams)

    def lose_state(self) -> None:
        """Delete all topics, subscriptions and messages."""
        self._topics = Topics()

    def wake(self) -> None:
        """Wake up streams and waiting pulls, so that they end when the service stops."""
        for subscription in self._topics.all_subscriptions():
            subscription.wake()

    def methods(self) -> Mapping[str, Mapping[str, Method]]:
        """Return the RPCs of publisher and subscriber."""
        return {
            "google.pubsub.v1.Publisher": dict(self._publisher_methods()),
            "google.pubsub.v1.Subscriber": {
                **dict(self._subscriber_methods()),
                **dict(self._snapshot_methods()),
            },
        }

    # All rows read `_topics` at each call, because `lose_state` replaces it.

    def _publisher_methods(self) -> list[tuple[str, Method]]:
        return [
            _rpc(
                "CreateTopic",
                "name",
                lambda r: self._topics.create_topic(r),  # noqa: PLW0108 - late binding
                takes="Topic",
                returns="Topic",
            ),
            _rpc("GetTopic", "topic", lambda r: self._topics.topic(r.topic), returns="Topic"),
            _rpc(
                "UpdateTopic",
                "topic",
                lambda r: self._topics.update_topic(r.topic, r.update_mask.paths),
                returns="Topic",
            ),
            _rpc("ListTopics", "project", lambda r: page(r, "topics", self._topics.topics(r.project))),
            _rpc(
                "ListTopicSubscriptions",
                "topic",
                lambda r: page(r, "subscriptions", self._topics.subscriptions_of(r.topic)),
            ),
            _rpc(
                "ListTopicSnapshots",
                "topic",
                lambda r: page(r, "snapshots", self._topics.snapshots_of(r.topic)),
            ),
            _rpc("DeleteTopic", "topic", lambda r: self._topics.delete_topic(r.topic), returns=""),
            _rpc("Publish", "topic", lambda r: {"message_ids": self._topics.publish(r.topic, r.messages)}),
            _rpc("DetachSubscription", "subscription", lambda r: self._topics.detach(r.subscription)),
        ]

    def _subscriber_methods(self) -> list[tuple[str, Method]]:
        return [
            _rpc(
                "CreateSubscription",
                "name",
                lambda r: self._topics.create_subscription(r),  # noqa: PLW0108 - late binding
                takes="Subscription",
                returns="Subscription",
            ),
            _rpc(
                "GetSubscription",
                "subscription",
                lambda r: self._topics.subscription(r.subscription).settings,
                returns="Subscription",
            ),
            _rpc(
                "UpdateSubscription",
                "subscription",
                lambda r: self._topics.update_subscription(r.subscription, r.update_mask.paths),
                returns="Subscription",
            ),
            _rpc("ModifyPushConfig", "subscription", self._modify_push_config, returns=""),
            _rpc(
                "DeleteSubscription",
                "subscription",
                lambda r: self._topics.delete_subscription(r.subscription),
                returns="",
            ),
            _rpc("ListSubscriptions", "project", self._list_subscriptions),
            _rpc("Pull", "subscription", self._pull, wants_context=True),
            _rpc("StreamingPull", "subscription", self._stream, converses=True),
            _rpc("Acknowledge", "subscription", self._acknowledge, returns=""),
            _rpc("ModifyAckDeadline", "subscription", self._modify, returns=""),
        ]

    def _snapshot_methods(self) -> list[tuple[str, Method]]:
        return [
            _rpc(
                "CreateSnapshot",
                "name",
                lambda r: self._topics.create_snapshot(r),  # noqa: PLW0108 - late binding
                returns="Snapshot",
            ),
            _rpc(
                "GetSnapshot",
                "snapshot",
                lambda r: self._topics.snapshot(r.snapshot).described,
                returns="Snapshot",
            ),
            _rpc(
                "ListSnapshots", "project", lambda r: page(r, "snapshots", self._topics.snapshots(r.project))
            ),
            _rpc(
                "DeleteSnapshot", "snapshot", lambda r: self._topics.delete_snapshot(r.snapshot), returns=""
            ),
            _rpc("Seek", "subscription", lambda r: self._topics.seek(r)),  # noqa: PLW0108 - late binding
        ]

    def _list_subscriptions(self, request: Any) -> Any:
        found = self._topics.subscriptions(request.project)
        return page(request, "subscriptions", [subscription.settings for subscription in found])

    def _modify_push_config(self, request: Any) -> None:
        """Accept an empty configuration, which asks for pull."""
        self._topics.subscription(request.subscription)
        if request.push_config.ByteSize():
            raise NotServed("Subscription.push_config", UNSERVED)

    def _pull(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.max_messages <= 0:
            raise invalid("No max_messages specified")
        subscription = self._topics.subscription(request.subscription)
        # A disconnected caller must not receive messages: they would be leased until their deadline.
        context.add_callback(subscription.wake)
        received = subscription.receive(
            limit=request.max_messages,
            window=Window(),
            lease_seconds=None,
            until=time.monotonic() + (0 if request.return_immediately else _PULL_WAIT_SECONDS),
            cancelled=lambda: self.stopping.is_set() or not context.is_active(),
        )
        if self.stopping.is_set():
            raise Refused(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        return {"received_messages": self._delivered(request.subscription, received)}

    def _acknowledge(self, request: Any) -> None:
        if not request.ack_ids:
            raise invalid("No ack ids specified.")
        subscription = self._topics.subscription(request.subscription)
        invalid_ids = self._acked(subscription, request.ack_ids)
        check_acks(invalid_ids, exactly_once=subscription.settings.enable_exactly_once_delivery)

    def _acked(self, subscription: LiveSubscription, ack_ids: Sequence[str]) -> list[str]:
        invalid_ids = subscription.acknowledge(ack_ids)
        self.calls.add("Acked", len(ack_ids) - len(invalid_ids))
        return invalid_ids

    def _modify(self, request: Any) -> None:
        if not request.ack_ids:
            raise invalid("No ack ids specified.")
        _check_deadline(request.ack_deadline_seconds)
        subscription = self._topics.subscription(request.subscription)
        invalid_ids = subscription.modify_deadline(request.ack_ids, request.ack_deadline_seconds)
        check_acks(invalid_ids, exactly_once=subscription.settings.enable_exactly_once_delivery)

    def _stream(self, first: Any, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        stream = Stream(self._topics.subscription(first.subscription), first)
        context.add_callback(stream.close)
        with self._lock:
            self._streams.add(stream)
        try:
            self._settle_in_stream(stream, first)
            stream.read(requests, lambda request: self._settle_in_stream(stream, request))
            for received in stream.batches(self.stopping.is_set):
                yield messages.StreamingPullResponse(
                    received_messages=self._delivered(first.subscription, received),
                    subscription_properties=stream.subscription.properties,
                )
        finally:
            stream.close()
            with self._lock:
                self._streams.discard(stream)

    def _settle_in_stream(self, stream: Stream, request: Any) -> None:
        # As on the official emulator no ack id ends the stream, also with exactly-once delivery.
        if request.ack_ids:
            self._acked(stream.subscription, request.ack_ids)
        ack_ids, deadlines = request.modify_deadline_ack_ids, request.modify_deadline_seconds
        if len(ack_ids) != len(deadlines):
            raise invalid("modify_deadline_ack_ids and modify_deadline_seconds must have the same size")
        for ack_id, seconds in zip(ack_ids, deadlines, strict=True):
            _check_deadline(seconds)
            stream.subscription.modify_deadline([ack_id], seconds)

    def _delivered(self, subscription: str, received: list[Any]) -> list[Any]:
        """Return the messages to deliver. `Deliver` faults drop, delay or double them or end the stream."""
        delivered = []
        for item in received:
            self.calls.add("Deliver")
            fault = self.faults.take("Deliver", _described(subscription, item)) if self.faults.armed else None
            if fault is None:
                delivered.append(item)
                continue
            self.before_effect(fault, item)
            self.fail_as(fault)
            if fault.duplicate:
                self._topics.subscription(subscription).add([item.message])
            if not fault.drop:
                delivered.append(item)
        return delivered


def _rpc(
    name: str,
    field: str,
    handle: Any,
    *,
    takes: str | None = None,
    returns: str | None = None,
    wants_context: bool = False,
    converses: bool = False,
) -> tuple[str, Method]:
    """Return the name of an RPC and the RPC. A fault's subject is the request's `field`.

    By default the types are called `{name}Request` and `{name}Response`; an empty `returns` is `Empty`.
    """
    response = empty_pb2.Empty if returns == "" else getattr(types, returns or f"{name}Response")
    return name, Method(
        request=getattr(types, takes or f"{name}Request"),
        response=response,
        handle=handle,
        subject=lambda message: name_of(getattr(message, field)),
        wants_context=wants_context,
        converses=converses,
    )


def _check_deadline(seconds: int) -> None:
    if not 0 <= seconds <= _MAX_DEADLINE_SECONDS:
        raise invalid(f"ack_deadline_seconds out of bounds: it must be 0 to {_MAX_DEADLINE_SECONDS} s")


def _described(subscription: str, item: Any) -> str:
    attributes = " ".join(f"{key}={value}" for key, value in item.message.attributes.items())
    return (
        f"{subscription} {item.message.message_id} {attributes} {item.message.data.decode(errors='replace')}"
    )
