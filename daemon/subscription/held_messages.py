"""Read the messages of a subscription and leave them there; remove single ones.

A message that was pulled is held: nobody else receives it until it is given back, or its ack deadline ends.
The id of a message stays the same over its deliveries, the ack id does not.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.api_core.exceptions import from_grpc_error
from google.api_core.gapic_v1.routing_header import to_grpc_metadata
from google.pubsub_v1.types import PullRequest, PullResponse

from daemon.subscription.admin import subscriber_client
from worker_chart_export.backends.errors import backend_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

#: A pull asks for so many messages at first, then for as many as fit into `PULL_BYTES`.
PULL_MESSAGES = 100
MAX_PULL_MESSAGES = 1000
PULL_BYTES = 4 * 1024 * 1024
#: If this process is killed, the messages that it holds come back after this time.
HOLD_SECONDS = 120
#: So often the held messages are held anew; a pull and a publish together take less.
EXTEND_AFTER_SECONDS = 40.0
#: A request may have 512 KiB (https://cloud.google.com/pubsub/quotas#resource_limits).
ACK_IDS_IN_REQUEST = 1000
CALL_TIMEOUT_SECONDS = 10.0
#: The pause after an empty answer that came at once, as emulators give.
EMPTY_PAUSE_SECONDS = 0.1
#: How long an interrupted pull may take to answer.
END_PULL_SECONDS = 1.0
CHECK_SECONDS = 0.1
MIN_PULL_SECONDS = 0.5
MAX_PULL_SECONDS = 15.0


class HeldMessages:
    """The messages of a subscription, each once; all that are not removed are given back at the end.

    Args:
        subscription: Its full path.
        first_wait_seconds: The listing ends when no message has come for this time. Pub/Sub can't say that
            there are no more.
        next_seconds: The same after the first message.
        is_exact: An empty answer means that there are no more, as from an emulator, whose messages are all in
            one place. Then the listing ends only after such an answer, however slow the server is.
        check: Called often, and never within a call of Google's client: an error in there may leave the
            connection in a state in which it can't be closed. What it raises ends the listing.

    Raises:
        BackendRefused: There are no credentials, or the subscription is missing or forbidden.
        BackendUnavailable: Pub/Sub is unavailable.
    """

    def __init__(
        self,
        subscription: str,
        *,
        first_wait_seconds: float,
        next_seconds: float,
        is_exact: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._subscription = subscription
        self._first_wait_seconds = first_wait_seconds
        self._next_seconds = next_seconds
        self._is_exact = is_exact
        self._check = check
        self._client = subscriber_client()
        self._ack_ids: dict[str, str] = {}
        self._removed: set[str] = set()
        self._pull_messages = PULL_MESSAGES
        self._call: Any = None
        self._extended_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._set_deadlines(list(self._ack_ids.values()), 0)
            self._end_pull()
        except Exception:
            if error is None:
                raise
            # The first error says more. The messages come back when their deadline ends.
        finally:
            self._client.close()

    def messages(self) -> Iterator[Any]:
        """Yield each message once, as a `PubsubMessage` of the wire format, and hold it."""
        until = time.monotonic() + self._first_wait_seconds
        while True:
            received = self._pull(until - time.monotonic())
            fresh = [each for each in received if self._is_new(each)]
            self._call = None
            for each in fresh:
                yield each.message
                self._check()
                self._extend_if_due()
            if fresh:
                until = time.monotonic() + self._next_seconds
            elif time.monotonic() >= until:
                return
            elif not received:
                time.sleep(EMPTY_PAUSE_SECONDS)

    def remove(self, message_id: str) -> None:
        """Acknowledge a held message: it is gone."""
        self._acknowledge(self._ack_ids[message_id])
        del self._ack_ids[message_id]
        self._removed.add(message_id)

    def _pull(self, seconds: float) -> Sequence[Any]:
        self._extend_if_due()
        timeout = (
            MAX_PULL_SECONDS if self._is_exact else min(max(seconds, MIN_PULL_SECONDS), MAX_PULL_SECONDS)
        )
        with backend_errors("pubsub"):
            answer = self._pulled(timeout)
        if answer is None or not answer.received_messages:
            return ()
        size = answer.ByteSize() // len(answer.received_messages)
        self._pull_messages = min(max(PULL_BYTES // size, 1), MAX_PULL_MESSAGES)
        # The subscription's own deadline may be ten seconds.
        self._set_deadlines([each.ack_id for each in answer.received_messages], HOLD_SECONDS)
        received: Sequence[Any] = answer.received_messages
        return received

    def _pulled(self, timeout: float) -> Any:
        """Return the answer of one pull; None: no message came.

        The client's own `pull` can't be ended before its time. A pull is not repeated after an error, because
        that may take messages twice.
        """
        request = PullRequest(
            subscription=self._subscription,
            max_messages=self._pull_messages,
            return_immediately=self._is_exact,
        )
        self._call = self._client.transport.pull.future(
            request, timeout=timeout, metadata=[to_grpc_metadata({"subscription": self._subscription})]
        )
        while True:
            self._check()
            try:
                return PullResponse.pb(self._call.result(timeout=CHECK_SECONDS))
            except grpc.FutureTimeoutError:
                continue
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not self._is_exact:
                    return None
                raise from_grpc_error(error) from error

    def _end_pull(self) -> None:
        """End a pull that was interrupted.

        It still waits at Pub/Sub, and gets what was given back. A cancellation may arrive too late, and then
        nobody receives those messages until their deadline. So its answer is awaited, and given back too.
        """
        if self._call is None:
            return
        try:
            answer = PullResponse.pb(self._call.result(timeout=END_PULL_SECONDS))
        except (grpc.RpcError, grpc.FutureTimeoutError):
            self._call.cancel()
        else:
            self._set_deadlines([each.ack_id for each in answer.received_messages], 0)

    def _is_new(self, received: Any) -> bool:
        """Note the ack id of a delivery; return if the message was not delivered here before."""
        message_id = received.message.message_id
        if message_id in self._removed:  # Pub/Sub may deliver an acked message again
            self._acknowledge(received.ack_id)
            return False
        is_new = message_id not in self._ack_ids
        self._ack_ids[message_id] = received.ack_id
        return is_new

    def _acknowledge(self, ack_id: str) -> None:
        with backend_errors("pubsub"):
            self._client.acknowledge(
                subscription=self._subscription, ack_ids=[ack_id], timeout=CALL_TIMEOUT_SECONDS
            )

    def _extend_if_due(self) -> None:
        if time.monotonic() - self._extended_at >= EXTEND_AFTER_SECONDS:
            self._set_deadlines(list(self._ack_ids.values()), HOLD_SECONDS)
            self._extended_at = time.monotonic()

    def _set_deadlines(self, ack_ids: Sequence[str], seconds: int) -> None:
        for start in range(0, len(ack_ids), ACK_IDS_IN_REQUEST):
            with backend_errors("pubsub"):
                self._client.modify_ack_deadline(
                    subscription=self._subscription,
                    ack_ids=ack_ids[start : start + ACK_IDS_IN_REQUEST],
                    ack_deadline_seconds=seconds,
                    timeout=CALL_TIMEOUT_SECONDS,
                )
