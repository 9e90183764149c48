"""StreamingPull: one open stream, its flow control, its reader."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.grpc_server import Refused
from localcloud.pubsub.delivery import Window
from localcloud.pubsub.messages import StreamingPullResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localcloud.pubsub.subscriptions import LiveSubscription

_NO_LIMIT = 1_000_000
_MIN_DEADLINE_SECONDS, _MAX_DEADLINE_SECONDS = 10, 600


class Stream:
    """A StreamingPull in progress.

    The limits of the first request are the stream's flow control, as in production; the official emulator
    ignores them. What a closed stream still holds comes back when its deadlines pass, not before.

    Args:
        subscription: Where its messages come from.
        first: The raw first request.
    """

    def __init__(self, subscription: LiveSubscription, first: Any) -> None:
        self.subscription = subscription
        self.closed = False
        self.reset: Refused | None = None
        self._window = Window(first.max_outstanding_messages, first.max_outstanding_bytes)
        self._lease_seconds = _checked_deadline(first.stream_ack_deadline_seconds)

    def close(self) -> None:
        """End the stream; also called by gRPC when the client is gone."""
        self.closed = True
        self.subscription.wake()

    def abort(self, refused: Refused) -> None:
        """End the stream with an error."""
        self.reset = refused
        self.close()

    def read(self, requests: Iterator[Any], settle: Callable[[Any], None]) -> None:
        """Follow the client's requests in a thread of its own, until the stream ends."""
        threading.Thread(
            target=self._follow, args=(requests, settle), name="localcloud-pubsub-stream", daemon=True
        ).start()

    def _follow(self, requests: Iterator[Any], settle: Callable[[Any], None]) -> None:
        try:
            for request in requests:
                if request.stream_ack_deadline_seconds:
                    self._lease_seconds = _checked_deadline(request.stream_ack_deadline_seconds)
                settle(request)
        except Refused as refused:
            self.abort(refused)
        except grpc.RpcError:
            pass  # how gRPC's request iterator says that the client is gone
        finally:
            self.close()

    def batches(self, over: Callable[[], bool]) -> Iterator[list[Any]]:
        """Batches of raw `ReceivedMessage`s until the stream is closed or it is `over`.

        Raises:
            Refused: The subscription was deleted, or the stream reset.
        """
        while not (self.closed or over()):
            received = self.subscription.receive(
                limit=_NO_LIMIT,
                window=self._window,
                lease_seconds=self._lease_seconds,
                until=None,
                over=lambda: self.closed or over(),
            )
            if received:
                yield received
        if self.reset:
            raise self.reset


def response(messages: list[Any]) -> Any:
    """The raw answer that carries `messages`."""
    return StreamingPullResponse(received_messages=messages)


def _checked_deadline(seconds: int) -> int:
    if not _MIN_DEADLINE_SECONDS <= seconds <= _MAX_DEADLINE_SECONDS:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "the stream's ack deadline must be 10 to 600 seconds")
    return seconds
