"""The daemon's life: start, pull until told to stop or refused, drain, leave.

All of it happens in the main thread, which waits for events: a signal, or the end of the stream.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.composition import build_worker
from daemon.delivery import Delivery
from daemon.drain import Drain
from daemon.exit_codes import ExitCode
from daemon.handler import MessageHandler
from daemon.health import HealthServer
from daemon.publisher import Publisher
from daemon.quarantine import Quarantine
from daemon.settings import Settings, SettingsError, load_settings
from daemon.settlement import Settlement
from daemon.signals import forward_stop_signals
from daemon.subscriber import Subscriber, why_stream_ended
from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.logs import Event, configure, log
from worker_chart_export.retry import full_jitter_seconds

if TYPE_CHECKING:
    from google.cloud.pubsub_v1.subscriber.futures import StreamingPullFuture

    from daemon.composition import Worker

#: Kept of the drain's time for stopping what would not finish, settling it and closing.
STOP_SHARE = 0.5
MOST_STOP_SECONDS = 5.0
MOST_REOPEN_SECONDS = 30.0
#: A stream that lasted so long was no failure to open one.
LONG_LIVED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Signalled:
    """A SIGTERM or SIGINT arrived, `at` this reading of the monotonic clock."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Probed:
    """The subscription was asked for; `error` says why it can't be pulled from."""

    error: BackendRefused | BackendUnavailable | None


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream ended by itself."""


class Daemon:
    """One daemon process.

    Args:
        settings: Everything it is told.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inbox: queue.SimpleQueue[Signalled | Probed | StreamEnded] = queue.SimpleQueue()
        self._drain = Drain()
        self._stream: StreamingPullFuture | None = None
        self._was_started = False

    def run(self) -> ExitCode:
        """Run until stopped.

        Raises:
            SettingsError: The health port is busy.
            BackendRefused: There are no credentials.
        """
        with ExitStack() as resources:
            health = self._health_server()
            forward_stop_signals(lambda received: self._inbox.put(Signalled(received.name, time.monotonic())))
            health.start()
            resources.callback(health.stop)
            worker = build_worker(self._settings)
            resources.push(worker.resources)
            subscriber = Subscriber(self._settings)
            resources.callback(subscriber.close)
            return self._serve(subscriber, self._delivery(worker, resources), health.port)

    def _health_server(self) -> HealthServer:
        host, port = self._settings.health_host, self._settings.health_port
        try:
            return HealthServer(host=host, port=port, why_not_ready=self._why_not_ready)
        except OSError as error:
            wanted = "HEALTH_HOST, HEALTH_PORT: expected an address to listen on"
            raise SettingsError([f"{wanted}, got {host}:{port} ({error.strerror or error})"]) from error

    def _delivery(self, worker: Worker, resources: ExitStack) -> Delivery:
        handler = MessageHandler(
            ledger=worker.ledger,
            pipeline=worker.pipeline,
            drain=self._drain,
            clock=worker.clock,
            step_timeout_seconds=self._settings.step_timeout_seconds,
            not_ready_grace_seconds=self._settings.not_ready_grace_seconds,
        )
        settlement = Settlement(_quarantine(self._settings, resources))
        return Delivery(handler=handler, settlement=settlement, drain=self._drain)

    def _serve(self, subscriber: Subscriber, delivery: Delivery, health_port: int) -> ExitCode:
        """Keep a stream open until a signal comes or the subscription is refused."""
        failures = 0
        while True:
            opened = time.monotonic()
            ended = self._pull(subscriber, delivery, health_port)
            if isinstance(ended, Signalled):
                return self._stop(ExitCode.OK, f"signal {ended.name}", since=ended.at)
            log.warning(Event.STREAM_ENDED, str(ended), backend="pubsub")
            if isinstance(ended, BackendRefused):
                return self._stop(ExitCode.REFUSED, str(ended), since=time.monotonic())
            failures = 1 if time.monotonic() - opened > LONG_LIVED_SECONDS else failures + 1
            pause = full_jitter_seconds(least=0.5, most=min(MOST_REOPEN_SECONDS, 2.0**failures))
            if signalled := self._wait(pause):
                return self._stop(ExitCode.OK, f"signal {signalled.name}", since=signalled.at)

    def _pull(
        self, subscriber: Subscriber, delivery: Delivery, health_port: int
    ) -> Signalled | BackendRefused | BackendUnavailable:
        """One stream from its opening to its end, or to a signal."""
        log.debug(Event.STREAM_OPENING, f"Opening a stream on {self._settings.subscription_path}")
        # In a thread: a black hole takes ten seconds to be noticed, and a signal must not wait for that.
        threading.Thread(target=self._probe, args=(subscriber,), name="probe", daemon=True).start()
        probed = self._inbox.get()
        if isinstance(probed, Signalled):
            return probed
        if isinstance(probed, Probed) and probed.error is not None:
            return probed.error
        self._stream = subscriber.open(delivery)
        self._stream.add_done_callback(lambda _future: self._inbox.put(StreamEnded()))
        self._log_open_stream(health_port)
        return self._wait_for_the_end(self._stream)

    def _wait_for_the_end(
        self, stream: StreamingPullFuture
    ) -> Signalled | BackendRefused | BackendUnavailable:
        event = self._inbox.get()
        if isinstance(event, Signalled):
            return event
        self._stream = None
        return why_stream_ended(stream)

    def _probe(self, subscriber: Subscriber) -> None:
        try:
            subscriber.probe()
        except (BackendRefused, BackendUnavailable) as error:
            self._inbox.put(Probed(error))
        except Exception as error:  # noqa: BLE001 - the main thread waits for an answer, whatever it is
            self._inbox.put(Probed(BackendUnavailable("pubsub", repr(error)[:300])))
        else:
            self._inbox.put(Probed(None))

    def _log_open_stream(self, health_port: int) -> None:
        """The first stream makes the daemon a started one; later ones are news of their own."""
        log.info(
            Event.STREAM_REOPENED if self._was_started else Event.DAEMON_STARTED,
            f"Pulling from {self._settings.subscription_path}",
            healthPort=health_port,
            concurrency=self._settings.worker_concurrency,
            mode=self._settings.charts_api_mode,
            pid=os.getpid(),
        )
        self._was_started = True

    def _wait(self, seconds: float) -> Signalled | None:
        """Wait for a signal, at most this long."""
        try:
            event = self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        return event if isinstance(event, Signalled) else None

    def _stop(self, code: ExitCode, reason: str, *, since: float) -> ExitCode:
        """Drain: take nothing new, let steps finish, stop what would not, flush the acks."""
        deadline = since + self._settings.drain_seconds
        self._drain.start()
        log.info(
            Event.DRAIN_STARTED,
            f"Stopping: {reason}",
            stepsRunning=self._drain.steps_running,
            drainSeconds=self._settings.drain_seconds,
        )
        if self._stream is not None:
            self._stream.cancel()
        reserve = min(MOST_STOP_SECONDS, STOP_SHARE * self._settings.drain_seconds)
        if not self._drain.wait_until_idle(deadline - reserve - time.monotonic()):
            self._drain.stop_steps()
        idle = self._drain.wait_until_idle(max(0.0, deadline - time.monotonic()))
        closed = idle and self._stream_closed(deadline)
        code = code if closed else ExitCode.DRAIN_TIMEOUT
        log.info(
            Event.DAEMON_STOPPED, f"Stopped with exit code {code.value}", exitCode=code.value, reason=reason
        )
        return code

    def _stream_closed(self, deadline: float) -> bool:
        """Wait until the client has nacked what never started and flushed its acks."""
        if self._stream is None:
            return True
        try:
            self._stream.result(timeout=max(0.1, deadline - time.monotonic()))
        except TimeoutError:
            return False
        except Exception as error:  # noqa: BLE001 - it is closed, if not as it should be
            log.warning(Event.STREAM_ENDED, f"The stream ended with {error!r:.300}", backend="pubsub")
        return True

    def _why_not_ready(self) -> str | None:
        if self._drain.is_draining:
            return "draining"
        stream = self._stream  # read once: the main thread lets go of it when it has ended
        return None if stream is not None and not stream.done() else "no stream is open"


def _quarantine(settings: Settings, resources: ExitStack) -> Quarantine | None:
    topic = settings.quarantine_topic_path
    if topic is None:
        return None
    publisher = Publisher()
    resources.callback(publisher.close)
    return Quarantine(publisher=publisher, topic=topic, subscription=settings.subscription_path)


def run_daemon() -> ExitCode:
    """Read the settings and run a daemon; errors become log lines and exit codes."""
    configure(level="INFO", log_format="json")
    try:
        settings = load_settings(Settings)
        configure(level=settings.log_level, log_format=settings.log_format)
        return Daemon(settings).run()
    except SettingsError as error:
        for problem in error.problems:
            log.error(Event.SETTINGS_INVALID, problem)
        return ExitCode.BAD_SETTINGS
    except BackendRefused as error:
        log.error(Event.BACKEND_REFUSED, str(error), backend=error.backend)
        return ExitCode.REFUSED
    except Exception as error:  # noqa: BLE001 - the last door before the process ends
        log.error(Event.INTERNAL_ERROR, f"The daemon failed: {error!r:.300}", exc_info=error)
        return ExitCode.INTERNAL_ERROR


def leave(code: int) -> None:
    """End the process now: an executor's hung thread would hold a normal exit for ever."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # whoever read it is gone
            stream.flush()
    os._exit(code)
