"""A StreamingPull in progress."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.grpc_server import Refused, invalid
from localcloud.pubsub.delivery import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localcloud.pubsub.subscriptions import LiveSubscription

_ACK_DEADLINE_SECONDS = range(10, 601)
# The settings of a stream. They can't be changed once it is open.
_FIRST_ONLY = ("subscription", "max_outstanding_messages", "max_outstanding_bytes", "protocol_version")
_NO_LIMIT = 1_000_000


class Stream:
    """A StreamingPull in progress.

    The limits of the first request are the stream's flow control, as in production; the official emulator
    ignores them. Messages of a closed stream are delivered again only after their deadlines.

    Args:
        subscription: The source of its messages.
        first: The raw first request.
    """

    def __init__(self, subscription: LiveSubscription, first: Any) -> None:
        self.subscription = subscription
        self.closed = False
        self.reset: Refused | None = None
        self._window = Window(first.max_outstanding_messages, first.max_outstanding_bytes)
        self._lease_seconds = _checked_deadline(first.stream_ack_deadline_seconds)

    def close(self) -> None:
        """End the stream; also called by gRPC when the client has disconnected."""
        self.closed = True
        self.subscription.wake()

    def abort(self, refused: Refused) -> None:
        """End the stream with an error."""
        self.reset = refused
        self.close()

    def read(self, requests: Iterator[Any], settle: Callable[[Any], None]) -> None:
        """Read the client's requests in a separate thread until the stream ends."""
        threading.Thread(
            target=self._follow, args=(requests, settle), name="localcloud-pubsub-stream", daemon=True
        ).start()

    def _follow(self, requests: Iterator[Any], settle: Callable[[Any], None]) -> None:
        try:
            for request in requests:
                for field in _FIRST_ONLY:
                    if getattr(request, field, None):  # types of older clients lack some
                        raise invalid(f"{field} may only be set in first message")
                if request.stream_ack_deadline_seconds:
                    self._lease_seconds = _checked_deadline(request.stream_ack_deadline_seconds)
                settle(request)
        except Refused as refused:
            self.abort(refused)
        except grpc.RpcError:
            pass  # raised by gRPC's request iterator when the client has disconnected
        finally:
            self.close()

    def batches(self, cancelled: Callable[[], bool]) -> Iterator[list[Any]]:
        """Yield batches of raw `ReceivedMessage`s until the stream is closed or `cancelled` returns True.

        Raises:
            Refused: The subscription was deleted, or the stream reset.
        """
        while not (self.closed or cancelled()):
            received = self.subscription.receive(
                limit=_NO_LIMIT,
                window=self._window,
                lease_seconds=self._lease_seconds,
                until=None,
                cancelled=lambda: self.closed or cancelled(),
            )
            if received:
                yield received
        if self.reset:
            raise self.reset


def _checked_deadline(seconds: int) -> int:
    if seconds not in _ACK_DEADLINE_SECONDS:
        raise invalid("stream_ack_deadline_seconds must be between 10 and 600 seconds")
    return seconds
