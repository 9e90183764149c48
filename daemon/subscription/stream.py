"""Open the streaming pull of a subscription.

Facts of Google's client that this file is designed around: Its defaults (1000 messages, 10 threads, leases of
an hour) do not fit, so messages = threads = `WORKER_CONCURRENCY`. The first lease of a message follows past
processing times unless both bounds of an extension are set. Without `await_callbacks_on_shutdown` the acks of
running callbacks are lost.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as google_errors
from google.cloud.pubsub_v1.subscriber.scheduler import ThreadScheduler
from google.cloud.pubsub_v1.types import FlowControl

from daemon.subscription.admin import probe, subscriber_client
from daemon.subscription.client_clock import measure_waits_by_boot_clock
from daemon.subscription.client_threads import reserve_threads
from daemon.subscription.delivery_window import DeliveryWindow, RenewableCall
from daemon.subscription.unsent_requests import UnsentRequests
from worker_chart_export.backends.errors import backend_errors
from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud.pubsub_v1.subscriber.futures import StreamingPullFuture
    from google.cloud.pubsub_v1.subscriber.message import Message

    from daemon.settings import Settings


class Subscriber:
    """Opens streams on one subscription.

    Raises:
        BackendRefused: There are no credentials.
    """

    def __init__(self, settings: Settings) -> None:
        measure_waits_by_boot_clock()
        reserve_threads()
        self._settings = settings
        self._window = DeliveryWindow(settings.worker_concurrency)
        self._unsent = UnsentRequests(self._window.follow)
        self._client = subscriber_client()

    def probe(self) -> None:
        """Check that the subscription exists and may be consumed.

        Raises:
            BackendRefused: The subscription is missing or forbidden.
            BackendUnavailable: Pub/Sub is unavailable.
        """
        settings = self._settings
        probe(self._client, settings.subscription_path, ack_deadline_seconds=settings.ack_extension_seconds)

    def open(self, callback: Callable[[Message], None]) -> StreamingPullFuture:
        """Start pulling; `callback` runs in one of `WORKER_CONCURRENCY` threads and must not raise.

        Raises:
            RuntimeError: The system has no more threads.
        """
        settings = self._settings
        executor = _started_executor(settings.worker_concurrency)
        return self._client.subscribe(
            settings.subscription_path,
            callback,
            flow_control=FlowControl(
                max_messages=settings.worker_concurrency,
                max_lease_duration=settings.max_lease_seconds,
                min_duration_per_lease_extension=settings.ack_extension_seconds,
                max_duration_per_lease_extension=settings.ack_extension_seconds,
            ),
            scheduler=NackingScheduler(executor, self._unsent, self._window),
            await_callbacks_on_shutdown=True,
        )

    def unsent_seconds(self) -> float:
        """Return the age of the oldest ack, nack or new deadline that was not sent yet, or 0."""
        return self._unsent.oldest_seconds()

    def restart_window_if_deferred(self) -> bool:
        """Start the window of the open stream at 0 and return True if deferred messages block it."""
        return self._window.restart_if_deferred()

    def close(self) -> None:
        """Close the connection. Calls in progress end with an error."""
        self._client.close()


def _started_executor(threads: int) -> ThreadPoolExecutor:
    """Return an executor whose threads run already: later the system may have no more."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="handler")
    all_started = threading.Barrier(threads)
    try:
        for _ in range(threads):
            executor.submit(all_started.wait)
    except RuntimeError:
        all_started.abort()
        executor.shutdown(wait=False)
        raise
    return executor


class NackingScheduler(ThreadScheduler):  # type: ignore[misc]
    """Nacks a message that arrives while the stream closes; the client would keep it to its deadline.

    Args:
        executor: Its threads run the callback.
        requests: The queue for acks, nacks and new deadlines.
        window: Counts the messages.
    """

    def __init__(
        self, executor: ThreadPoolExecutor, requests: UnsentRequests, window: DeliveryWindow
    ) -> None:
        super().__init__(executor)
        self._requests = requests
        self._window = window

    @property
    def queue(self) -> UnsentRequests:
        """The queue from which the client sends."""
        return self._requests

    def schedule(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Run `callback` in a thread of the executor."""
        message: Message = args[0]
        self._window.add(message.ack_id)
        try:
            self._executor.submit(callback, *args, **kwargs)
        except RuntimeError:  # the executor is shut down
            message.nack()


class Stream:
    """An open stream with its own connection, which is closed when the stream ends.

    Args:
        subscriber: The connection.
        future: The client's handle of the stream.
    """

    def __init__(self, subscriber: Subscriber, future: StreamingPullFuture) -> None:
        self._subscriber = subscriber
        self._future = future
        self._call = RenewableCall(future)
        future.add_done_callback(lambda _: subscriber.close())

    @property
    def is_open(self) -> bool:
        """True while messages may arrive."""
        return not (self._future.cancelled() or self._future.done())

    @property
    def has_ended(self) -> bool:
        """True once callbacks are done, waiting messages are nacked and acks are sent."""
        return bool(self._future.done())

    def unsent_seconds(self) -> float:
        """Return the age of the oldest ack, nack or new deadline that was not sent yet, or 0."""
        return 0.0 if self.has_ended else self._subscriber.unsent_seconds()

    def renew_if_blocked(self) -> None:
        """Get messages again if deferred ones fill the stream; returns at once. Call it every few seconds."""
        if self.is_open and self._subscriber.restart_window_if_deferred():
            log.debug(Event.STREAM_OPENING, "Deferred messages fill the stream: opening a new call")
            self._call.renew()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the stream has ended; at once if it has ended already."""
        self._future.add_done_callback(lambda _: callback())

    def cancel(self) -> None:
        """Start to end the stream; returns at once."""
        self._future.cancel()

    def wait_until_ended(self, seconds: float) -> bool:
        """Wait for the end. Return True if the stream ended in time, with or without an error.

        A server that goes down just then may end a cancelled stream as CANCELLED, which is what was wanted.
        """
        try:
            self._future.result(timeout=max(0.0, seconds))
        except TimeoutError:
            return self.has_ended  # the stream itself may have ended with a TimeoutError
        except Exception as error:  # noqa: BLE001 - it has ended, which is all that counts here
            if not (self._future.cancelled() and isinstance(error, google_errors.Cancelled)):
                log.warning(Event.STREAM_ENDED, f"The stream ended with {error!r:.300}", backend="pubsub")
        return True

    def end_error(self) -> BackendRefused | BackendUnavailable:
        """Return the error that ended a stream that was not cancelled: a refusal, or unavailability."""
        try:
            with backend_errors("pubsub"):
                self._future.result(timeout=0)
        except (BackendRefused, BackendUnavailable) as error:
            return error
        except Exception as error:  # noqa: BLE001 - the stream is opened again after any other error
            return BackendUnavailable("pubsub", repr(error))
        return BackendUnavailable("pubsub", "the stream ended without an error")

    def disconnect(self) -> None:
        """Close the connection of a stream that does not end; returns at once."""
        with suppress(RuntimeError):  # no more threads: the stream is left as it is
            threading.Thread(target=self._subscriber.close, name="disconnect", daemon=True).start()


def open_stream(settings: Settings, callback: Callable[[Message], None]) -> Stream:
    """Connect, probe the subscription, and start pulling. Has no time limit of its own.

    Raises:
        BackendRefused: There are no credentials, or the subscription is missing or forbidden.
        BackendUnavailable: Pub/Sub is unavailable.
    """
    subscriber = Subscriber(settings)
    try:
        subscriber.probe()
        return Stream(subscriber, subscriber.open(callback))
    except BaseException:
        subscriber.close()
        raise
