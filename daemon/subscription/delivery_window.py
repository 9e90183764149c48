"""The server's flow control of a stream, and a new start of it when deferred messages fill it.

Pub/Sub counts each message that it has sent on a stream until it is acked or nacked, or until its deadline is
over (https://cloud.google.com/pubsub/docs/flow-control-messages). A deferred message is neither, so
`WORKER_CONCURRENCY` of them stop the stream for as long as they are deferred, while all threads are idle.
The count belongs to one call of the stream. A new call starts at 0, and changes no deadline.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from google.cloud.pubsub_v1.subscriber._protocol.requests import AckRequest, ModAckRequest, NackRequest

if TYPE_CHECKING:
    from collections.abc import Callable

#: The client itself opens at most five calls again in ten seconds, and blocks before the next one.
#: One is left for a call that Pub/Sub ends.
MAX_RESTARTS, RESTARTS_SECONDS = 4, 10.0
#: A new call is made when at least this share of the window is deferred: it may bring as many messages as
#: there are threads, and those that find no free thread wait in this process.
MIN_DEFERRED_SHARE = 0.5


class DeliveryWindow:
    """The messages that Pub/Sub counts on the current call of a stream. Shared by all threads.

    It counts a message later and releases it earlier than Pub/Sub does. So when it is full, Pub/Sub sends
    nothing, and a new call loses no message on its way.

    Args:
        size: How many messages Pub/Sub sends before it waits.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._lock = threading.Lock()
        self._deadlines: dict[str, float] = {}  # by ack id; infinite while a thread has the message
        self._restarts: deque[float] = deque(maxlen=MAX_RESTARTS)

    def add(self, ack_id: str) -> None:
        """Count a message that was delivered."""
        with self._lock:
            self._deadlines[ack_id] = math.inf

    def follow(self, request: Any) -> None:
        """Follow what the client is to send: an ack, a nack, or the new deadline of a deferred message."""
        with self._lock:
            if isinstance(request, ModAckRequest) and request.ack_id in self._deadlines:
                self._deadlines[request.ack_id] = self._clock() + request.seconds
            elif isinstance(request, AckRequest | NackRequest):
                self._deadlines.pop(request.ack_id, None)

    def restart_if_deferred(self) -> bool:
        """Start at 0 and return True if the window is full, and deferred messages are a large part of it."""
        now = self._clock()
        with self._lock:
            self._deadlines = {name: end for name, end in self._deadlines.items() if end > now}
            deferred = sum(end < math.inf for end in self._deadlines.values())
            is_blocked = len(self._deadlines) >= self._size and deferred >= self._size * MIN_DEFERRED_SHARE
            may_restart = len(self._restarts) < MAX_RESTARTS or now - self._restarts[0] >= RESTARTS_SECONDS
            if not is_blocked or not may_restart:
                return False
            self._deadlines.clear()
            self._restarts.append(now)
            return True


class RenewableCall:
    """The call of a stream, which can be replaced by a new one while the stream stays open.

    The client opens a new call after some errors, and ends the stream after others, such as a cancellation.
    Here a cancellation by `renew` counts as one of the former. A client that does it in another way is left
    alone: then `renew` does nothing.

    Args:
        future: The client's handle of the stream.
    """

    def __init__(self, future: Any) -> None:
        manager = getattr(future, "_StreamingPullFuture__manager", None)
        self._rpc: Any = getattr(manager, "_rpc", None)
        self._cancelled: deque[Any] = deque(maxlen=8)
        self._terminates: Callable[[Any], bool] | None = getattr(self._rpc, "_should_terminate", None)
        self._recovers: Callable[[Any], bool] | None = getattr(self._rpc, "_should_recover", None)
        if self._terminates and self._recovers:
            vars(self._rpc).update(
                _should_terminate=self._should_terminate, _should_recover=self._should_recover
            )

    def renew(self) -> None:
        """Cancel the current call, so that the client opens a new one; returns at once."""
        call = getattr(self._rpc, "call", None)
        if self._terminates and self._recovers and call is not None:
            self._cancelled.append(getattr(call, "_wrapped", call))
            call.cancel()

    def _should_terminate(self, error: Any) -> bool:
        decide = self._terminates
        return not self._is_ours(error) and (decide is None or decide(error))

    def _should_recover(self, error: Any) -> bool:
        decide = self._recovers
        return self._is_ours(error) or (decide is not None and decide(error))

    def _is_ours(self, error: Any) -> bool:
        """Return whether `renew` cancelled the call that ended with the error, and the stream is open."""
        call = getattr(error, "response", None) or error
        is_open = not getattr(self._rpc, "_finalized", True)
        return is_open and any(call is cancelled for cancelled in self._cancelled)
