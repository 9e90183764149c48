"""The streaming pull: the only owner of the Pub/Sub subscriber client.

What is known of the client and designed around here: its defaults (1000 messages, 10 threads, leases of an
hour) fit nobody, so messages = threads = concurrency; a receipt's lease follows past processing times unless
both extension bounds are set; without `await_callbacks_on_shutdown` the acks of running callbacks are lost.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from google.api_core import exceptions as google_errors
from google.cloud.pubsub_v1 import SubscriberClient
from google.cloud.pubsub_v1.subscriber.scheduler import ThreadScheduler
from google.cloud.pubsub_v1.types import FlowControl

from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.retry import backend_errors, client_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud.pubsub_v1.subscriber.futures import StreamingPullFuture
    from google.cloud.pubsub_v1.subscriber.message import Message

    from daemon.settings import Settings

PROBE_TIMEOUT_SECONDS = 10.0
#: An ack id that Pub/Sub never gave out.
NOBODYS_ACK_ID = "probe"


class Subscriber:
    """Opens streams on one subscription.

    Raises:
        BackendRefused: There are no credentials.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        with client_errors("pubsub"):
            self._client = SubscriberClient()

    def probe(self) -> None:
        """Ask whether the subscription is there and may be consumed.

        Moves the deadline of a message nobody has: that needs the very permission the stream needs
        (`pubsub.subscriptions.consume`), where reading the subscription would need one more.

        Raises:
            BackendRefused: The subscription is missing or forbidden.
            BackendUnavailable: Pub/Sub is away.
        """
        with backend_errors("pubsub"):
            try:
                self._client.modify_ack_deadline(
                    subscription=self._settings.subscription_path,
                    ack_ids=[NOBODYS_ACK_ID],
                    ack_deadline_seconds=self._settings.ack_extension_seconds,
                    timeout=PROBE_TIMEOUT_SECONDS,
                    retry=None,
                )
            except google_errors.InvalidArgument:
                return  # the subscription is there and knows no such ack id

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
            scheduler=ThreadScheduler(executor),
            await_callbacks_on_shutdown=True,
        )

    def close(self) -> None:
        """Close the connection; streams must have ended."""
        self._client.close()


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
