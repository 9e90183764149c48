"""Answer the RPCs of Pub/Sub: publisher and subscriber."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import empty_pb2
from google.pubsub_v1.types import pubsub as types

from localcloud.grpc_server import GrpcService, Method, Refused, invalid
from localcloud.pubsub import messages
from localcloud.pubsub.delivery import Window
from localcloud.pubsub.subscriptions import Stream
from localcloud.pubsub.topics import Topics
from localcloud.pubsub.unserved import UNSERVED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        for subscription in self._topics.subscriptions():
            subscription.wake()

    def methods(self) -> Mapping[str, Mapping[str, Method | grpc.RpcMethodHandler[Any, Any]]]:
        """Return the RPCs of publisher and subscriber."""
        # All rows read `_topics` at each call, because `lose_state` replaces it.
        publisher = [
            _rpc(
                "CreateTopic",
                "name",
                lambda r: self._topics.create_topic(r),  # noqa: PLW0108 - late binding
                takes="Topic",
                returns="Topic",
            ),
            _rpc("GetTopic", "topic", lambda r: self._topics.topic(r.topic), returns="Topic"),
            _rpc("ListTopics", "project", lambda r: {"topics": self._topics.topics(r.project)}),
            _rpc(
                "ListTopicSubscriptions",
                "topic",
                lambda r: {"subscriptions": [each.name for each in self._topics.of_topic(r.topic)]},
            ),
            _rpc("DeleteTopic", "topic", lambda r: self._topics.delete_topic(r.topic), returns=""),
            _rpc("Publish", "topic", lambda r: {"message_ids": self._topics.publish(r.topic, r.messages)}),
        ]
        streaming_pull = grpc.stream_stream_rpc_method_handler(
            self._streaming_pull,
            request_deserializer=messages.StreamingPullRequest.FromString,
            response_serializer=messages.StreamingPullResponse.SerializeToString,
        )
        return {
            "google.pubsub.v1.Publisher": dict(publisher),
            "google.pubsub.v1.Subscriber": {
                **dict(self._subscriber_methods()),
                "StreamingPull": streaming_pull,
            },
        }

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
                "update_mask",
                lambda r: self._topics.update_subscription(r.subscription, r.update_mask.paths),
                returns="Subscription",
            ),
            _rpc(
                "DeleteSubscription",
                "subscription",
                lambda r: self._topics.delete_subscription(r.subscription),
                returns="",
            ),
            _rpc(
                "ListSubscriptions",
                "project",
                lambda r: {
                    "subscriptions": [x.settings for x in self._topics.subscriptions(f"{r.project}/")]
                },
            ),
            _rpc("Pull", "subscription", self._pull, wants_context=True),
            _rpc("Acknowledge", "subscription", self._acknowledge, returns=""),
            _rpc("ModifyAckDeadline", "subscription", self._modify, returns=""),
        ]

    def _pull(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.max_messages <= 0:
            raise invalid("max_messages must be positive")
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
        self.calls.add("Acked", self._topics.subscription(request.subscription).acknowledge(request.ack_ids))

    def _modify(self, request: Any) -> None:
        if not request.ack_ids:
            raise invalid("No ack ids specified.")
        _check_deadline(request.ack_deadline_seconds)
        subscription = self._topics.subscription(request.subscription)
        subscription.modify_deadline(request.ack_ids, request.ack_deadline_seconds)

    def _streaming_pull(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self.calls.add("StreamingPull")
        try:
            first = next(requests)
        except (StopIteration, grpc.RpcError):
            return  # the client disconnected before its first request
        try:
            fault = self.faults.take("StreamingPull", first.subscription)
            if fault:
                self.before_effect(fault, first)
                self.fail_as(fault)
            yield from self._stream(first, requests, context)
        except Refused as refused:
            context.abort(refused.code, refused.message)

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
                    received_messages=self._delivered(first.subscription, received)
                )
            if self.stopping.is_set():
                raise Refused(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        finally:
            stream.close()
            with self._lock:
                self._streams.discard(stream)

    def _settle_in_stream(self, stream: Stream, request: Any) -> None:
        if request.ack_ids:
            self.calls.add("Acked", stream.subscription.acknowledge(request.ack_ids))
        for ack_id, seconds in zip(
            request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=False
        ):
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
) -> tuple[str, Method]:
    """Return the name of an RPC and the RPC. A fault's subject is the request's `field`.

    By default the types are called `{name}Request` and `{name}Response`; an empty `returns` is `Empty`.
    """
    response = empty_pb2.Empty if returns == "" else getattr(types, returns or f"{name}Response")
    return name, Method(
        request=getattr(types, takes or f"{name}Request"),
        response=response,
        handle=handle,
        subject=lambda message: str(getattr(message, field)),
        wants_context=wants_context,
    )


def _check_deadline(seconds: int) -> None:
    if not 0 <= seconds <= _MAX_DEADLINE_SECONDS:
        raise invalid(f"the ack deadline must be 0 to {_MAX_DEADLINE_SECONDS} s")


def _described(subscription: str, item: Any) -> str:
    attributes = " ".join(f"{key}={value}" for key, value in item.message.attributes.items())
    return (
        f"{subscription} {item.message.message_id} {attributes} {item.message.data.decode(errors='replace')}"
    )
