"""The streaming pull: the only owner of the Pub/Sub subscriber client.

What is known of the client and designed around here: its defaults (1000 messages, 10 threads, leases of an
hour) fit nobody, so messages = threads = concurrency; a receipt's lease follows past processing times unless
both extension bounds are set; without `await_callbacks_on_shutdown` the acks of running callbacks are lost.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as google_errors
from google.cloud.pubsub_v1 import SubscriberClient
from google.cloud.pubsub_v1.subscriber.scheduler import ThreadScheduler
from google.cloud.pubsub_v1.types import FlowControl

from daemon.subscription.subscription_facts import SubscriptionFacts
from worker_chart_export.backends.errors import backend_errors, client_errors
from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud.pubsub_v1.subscriber.futures import StreamingPullFuture
    from google.cloud.pubsub_v1.subscriber.message import Message

    from daemon.settings.daemon import Settings

PROBE_TIMEOUT_SECONDS = 10.0
#: An ack id that Pub/Sub never gave out.
NOBODYS_ACK_ID = "probe"
MIN_ACK_DEADLINE_SECONDS = 10


class Subscriber:
    """Opens streams on one subscription.

    Raises:
        BackendRefused: There are no credentials.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = _client()

    def probe(self) -> None:
        """Ask whether the subscription is there and may be consumed.

        Moves the deadline of a message nobody has: that needs the very permission the stream needs
        (`pubsub.subscriptions.consume`), where reading the subscription would need one more.

        Raises:
            BackendRefused: The subscription is missing or forbidden.
            BackendUnavailable: Pub/Sub is away.
        """
        _probe(self._client, self._settings.subscription_path, self._settings.ack_extension_seconds)

    def open(self, callback: Callable[[Message], None]) -> StreamingPullFuture:
        """Start pulling; `callback` runs in one of `WORKER_CONCURRENCY` threads and must not raise."""
        settings = self._settings
        executor = ThreadPoolExecutor(settings.worker_concurrency, thread_name_prefix="handler")
        return self._client.subscribe(
            settings.subscription_path,
            callback,
            flow_control=FlowControl(
                max_messages=settings.worker_concurrency,
                max_lease_duration=settings.max_lease_seconds,
                min_duration_per_lease_extension=settings.ack_extension_seconds,
                max_duration_per_lease_extension=settings.ack_extension_seconds,
            ),
            scheduler=_GivingBack(executor),
            await_callbacks_on_shutdown=True,
        )

    def close(self) -> None:
        """Close the connection; what still uses it ends with an error."""
        self._client.close()


class _GivingBack(ThreadScheduler):  # type: ignore[misc]
    """Nacks a message that comes while the stream closes, where the client would keep it to its deadline."""

    def schedule(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Hand `callback` to a thread."""
        try:
            self._executor.submit(callback, *args, **kwargs)
        except RuntimeError:  # the executor takes nothing any more
            message: Message = args[0]
            message.nack()


class Stream:
    """An open stream, and the connection that it has for itself and closes when it ends.

    Args:
        subscriber: The connection.
        future: The client's handle of the stream.
    """

    def __init__(self, subscriber: Subscriber, future: StreamingPullFuture) -> None:
        self._subscriber = subscriber
        self._future = future
        future.add_done_callback(lambda _: subscriber.close())

    @property
    def is_open(self) -> bool:
        """Whether messages may come."""
        return not (self._future.cancelled() or self._future.done())

    @property
    def is_over(self) -> bool:
        """Whether it has ended: callbacks done, what never started nacked, acks sent."""
        return bool(self._future.done())

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` once it has ended, at once if it has."""
        self._future.add_done_callback(lambda _: callback())

    def cancel(self) -> None:
        """Begin to end it; returns at once."""
        self._future.cancel()

    def wait_until_over(self, seconds: float) -> bool:
        """Wait for the end, however it comes; whether it came in time."""
        try:
            self._future.result(timeout=max(0.0, seconds))
        except TimeoutError:
            return self.is_over  # it may have ended with a time-out of its own
        except Exception as error:  # noqa: BLE001 - it is over, if not as it should be
            log.warning(Event.STREAM_ENDED, f"The stream ended with {error!r:.300}", backend="pubsub")
        return True

    def why_over(self) -> BackendRefused | BackendUnavailable:
        """What ended it."""
        return why_stream_ended(self._future)

    def disconnect(self) -> None:
        """Cut the connection of a stream that does not end; returns at once."""
        threading.Thread(target=self._subscriber.close, name="disconnect", daemon=True).start()


def open_stream(settings: Settings, callback: Callable[[Message], None]) -> Stream:
    """Connect, ask whether the subscription may be consumed, and start pulling. Takes as long as it takes.

    Raises:
        BackendRefused: There are no credentials, or the subscription is missing or forbidden.
        BackendUnavailable: Pub/Sub is away.
    """
    subscriber = Subscriber(settings)
    try:
        subscriber.probe()
        return Stream(subscriber, subscriber.open(callback))
    except BaseException:
        subscriber.close()
        raise


def _probe(client: SubscriberClient, subscription_path: str, ack_deadline_seconds: int) -> None:
    with backend_errors("pubsub"):
        try:
            client.modify_ack_deadline(
                subscription=subscription_path,
                ack_ids=[NOBODYS_ACK_ID],
                ack_deadline_seconds=ack_deadline_seconds,
                timeout=PROBE_TIMEOUT_SECONDS,
                retry=None,
            )
        except google_errors.InvalidArgument:
            return  # the subscription is there and knows no such ack id


def probe_subscription(subscription_path: str) -> None:
    """As `Subscriber.probe`, for whoever opens no stream; also raises when there are no credentials."""
    with _client() as client:
        _probe(client, subscription_path, MIN_ACK_DEADLINE_SECONDS)


def read_subscription(subscription_path: str) -> SubscriptionFacts:
    """The subscription's settings; needs `pubsub.subscriptions.get`, which the daemon itself does not.

    Raises:
        BackendRefused: There are no credentials, or the subscription is missing or may not be read.
        BackendUnavailable: Pub/Sub is away.
    """
    with _client() as client, backend_errors("pubsub"):
        told = client.get_subscription(
            subscription=subscription_path, timeout=PROBE_TIMEOUT_SECONDS, retry=None
        )
        return SubscriptionFacts.of(told)


def _client() -> SubscriberClient:
    with client_errors("pubsub"):
        return SubscriberClient()


def topic_of(subscription_path: str) -> str:
    """The full path of the topic a subscription is on; errors as the client's."""
    with SubscriberClient() as client:
        return str(
            client.get_subscription(subscription=subscription_path, timeout=PROBE_TIMEOUT_SECONDS).topic
        )


def why_stream_ended(future: StreamingPullFuture) -> BackendRefused | BackendUnavailable:
    """What ended a stream that nobody cancelled: a refusal, or trouble that may pass."""
    try:
        with backend_errors("pubsub"):
            future.result(timeout=0)
    except (BackendRefused, BackendUnavailable) as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever ended the stream, it is opened again
        return BackendUnavailable("pubsub", repr(error))
    return BackendUnavailable("pubsub", "the stream ended without an error")
