"""The daemon's life: start, pull until told to stop or refused, drain, leave.

All of it happens in the main thread, which waits for events: a request to stop, or the end of the stream.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from daemon.composition import build_worker
from daemon.exit import ExitCode, arm_exit_timer
from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.handling.handler import MessageHandler
from daemon.handling.rescue import Rescue
from daemon.http.gauges import register_gauges
from daemon.http.page.live_page import LivePage
from daemon.http.server import HealthServer, health_routes
from daemon.lifecycle.drain import Drain, DrainTimes
from daemon.lifecycle.liveness import Liveness, readiness
from daemon.lifecycle.signals import forward_stop_signals
from daemon.lifecycle.stoppable_wait import StoppableWait, StopRequested
from daemon.lifecycle.systemd import SdNotify, ServiceManager
from daemon.settings import Settings, SettingsError, load_settings
from daemon.subscription.callback import Delivery
from daemon.subscription.publisher import Publisher
from daemon.subscription.quarantine import Quarantine
from daemon.subscription.settlement import Settlement
from daemon.subscription.stream import open_stream
from daemon.subscription.supervisor import Quiet, StreamSupervisor
from daemon.tracing.setup import Tracing
from worker_chart_export.errors import BackendRefused
from worker_chart_export.observability.logs import Event, configure, log

if TYPE_CHECKING:
    import signal

    from daemon.composition import Worker
    from daemon.lifecycle.liveness import HealthReport

#: The longest silence of this process's own loops before it counts as dead.
MAIN_WITHIN_SECONDS = 30.0
#: Beyond the time between two heart-beats: its two calls may each wait for their timeout.
BEAT_WITHIN_SECONDS = 60.0
BREAKER_WITHIN_SECONDS = 120.0
#: So long after the drain's time the process ends whatever it does.
GRACE_SECONDS = 0.5


class Daemon:
    """One daemon process.

    Args:
        settings: Everything it is told.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._liveness = Liveness()
        self._waiter = StoppableWait(on_tick=lambda: self._liveness.tick("main"))
        self._drain = Drain()
        self._breaker: CircuitBreaker | None = None
        self._watch: StreamSupervisor | None = None
        self._was_started = False
        manager = ServiceManager.of(os.environ)
        self._page = LivePage(
            settings=settings,
            drain=self._drain,
            readiness=self._readiness,
            liveness=self._liveness.health_report,
        )
        self._tracing = Tracing(settings)
        self._notify = SdNotify(manager, why_dead=self._liveness.why_dead, status=self._status)

    def run(self) -> ExitCode:
        """Run until stopped.

        Raises:
            SettingsError: The health port is busy.
            BackendRefused: There are no credentials.
        """
        with ExitStack() as resources:
            resources.callback(self._notify.close)
            health = self._health_server()
            forward_stop_signals(self._request_stop)
            health.start()
            resources.callback(health.stop)
            self._liveness.expect("main", within_seconds=MAIN_WITHIN_SECONDS)
            self._notify.start()
            try:  # credentials may take long to be found
                worker = self._waiter.wait_for(lambda: build_worker(self._settings), name="building")
            except StopRequested as stop:
                return self._stop_early(stop)
            resources.push(worker.resources)
            register_gauges(
                settings=self._settings,
                drain=self._drain,
                heart_beats=worker.heart_beats,
                readiness=self._readiness,
            )
            resources.enter_context(self._page.watching(worker))
            resources.enter_context(self._tracing.watching(worker.ledger.owner))
            self._breaker = resources.enter_context(self._new_breaker(worker))
            self._start_threads(worker, self._breaker)
            delivery = self._delivery(worker, self._breaker, resources)
            self._watch = self._new_supervisor(delivery, self._breaker, health.port)
            code = self._serve(self._watch, worker)
            if code is ExitCode.DRAIN_TIMEOUT:
                resources.pop_all()  # a thread hangs: closing what it uses could wait for it
            return code

    def _request_stop(self, received: signal.Signals) -> None:
        """The end is set here: the main thread may hang, for instance in a pipe that nobody reads."""
        self._arm_exit_timer()
        self._waiter.request_stop(f"signal {received.name}")

    def _arm_exit_timer(self) -> None:
        arm_exit_timer(time.monotonic() + self._settings.drain_seconds + GRACE_SECONDS)

    def _health_server(self) -> HealthServer:
        host, port = self._settings.health_host, self._settings.health_port
        routes = health_routes(liveness=self._liveness.health_report, readiness=self._readiness)
        try:
            return HealthServer(host=host, port=port, routes=routes | self._page.routes())
        except OSError as error:
            wanted = "HEALTH_HOST, HEALTH_PORT: expected an address to listen on"
            raise SettingsError([f"{wanted}, got {host}:{port} ({error.strerror or error})"]) from error

    def _new_breaker(self, worker: Worker) -> CircuitBreaker:
        breaker = CircuitBreaker(
            probes={"firestore": worker.ledger.probe, "storage": worker.artifacts.probe},
            on_tick=self._liveness.expect("intake", within_seconds=BREAKER_WITHIN_SECONDS),
        )
        self._drain.on_start(breaker.stop)
        return breaker

    def _start_threads(self, worker: Worker, breaker: CircuitBreaker) -> None:
        """What works beside the handlers: heart-beats until the end, the rescue until the drain."""
        every_seconds = worker.ledger.terms.renew_every_seconds
        worker.heart_beats.start(
            self._liveness.expect("heart-beats", within_seconds=every_seconds + BEAT_WITHIN_SECONDS),
            on_failure=lambda: breaker.record_failure("firestore"),
            on_success=lambda: breaker.record_success("firestore"),
        )
        settings = self._settings
        longest_seconds = 2 * settings.rescue_interval_seconds + settings.max_lease_seconds
        Rescue(
            ledger=worker.ledger,
            pipeline=worker.pipeline,
            breaker=breaker,
            drain=self._drain,
            clock=worker.clock,
            interval_seconds=settings.rescue_interval_seconds,
            on_tick=self._liveness.expect("rescue", within_seconds=longest_seconds),
        ).start()

    def _delivery(self, worker: Worker, breaker: CircuitBreaker, resources: ExitStack) -> Delivery:
        handler = MessageHandler(
            ledger=worker.ledger,
            pipeline=worker.pipeline,
            drain=self._drain,
            breaker=breaker,
            clock=worker.clock,
            step_timeout_seconds=self._settings.step_timeout_seconds,
            not_ready_grace_seconds=self._settings.not_ready_grace_seconds,
        )
        settlement = Settlement(_quarantine(self._settings, resources))
        return Delivery(handler=handler, settlement=settlement, drain=self._drain)

    def _new_supervisor(
        self, delivery: Delivery, breaker: CircuitBreaker, health_port: int
    ) -> StreamSupervisor:
        return StreamSupervisor(
            open_stream=lambda: open_stream(self._settings, delivery),
            on_open=lambda reason: self._log_open_stream(reason, health_port),
            waiter=self._waiter,
            quiet=Quiet(drain=self._drain, breaker=breaker),
            liveness=self._liveness,
            idle_seconds=self._settings.stream_idle_seconds,
        )

    def _log_open_stream(self, reason: str, health_port: int) -> None:
        """The first stream makes the daemon a started one; later ones are news of their own."""
        log.info(
            Event.STREAM_REOPENED if self._was_started else Event.DAEMON_STARTED,
            f"Pulling from {self._settings.subscription_path}",
            reason=reason if self._was_started else None,
            healthPort=health_port,
            concurrency=self._settings.worker_concurrency,
            mode=self._settings.charts_api_mode,
            pid=os.getpid(),
        )
        if not self._was_started:
            self._was_started = True
            self._notify.ready()

    def _serve(self, watch: StreamSupervisor, worker: Worker) -> ExitCode:
        """Keep a stream open until a stop is asked for or the subscription is refused."""
        try:
            watch.keep_open()
        except StopRequested as stop:
            code, reason, since = ExitCode.OK, stop.reason, stop.at
        except BackendRefused as error:
            log.warning(Event.STREAM_ENDED, str(error), backend="pubsub")
            code, reason, since = ExitCode.REFUSED, str(error), time.monotonic()
            self._arm_exit_timer()
        return self._stop(code, reason, since=since, watch=watch, worker=worker)

    def _stop(
        self, code: ExitCode, reason: str, *, since: float, watch: StreamSupervisor, worker: Worker
    ) -> ExitCode:
        """Drain: take nothing new, let steps finish, stop what would not, flush the acks."""
        times = DrainTimes.of(start=since, seconds=self._settings.drain_seconds)
        self._liveness.retire()
        self._drain.start()
        self._notify.stopping(ends_at=times.end + GRACE_SECONDS)
        log.info(
            Event.DRAIN_STARTED,
            f"Stopping: {reason}",
            stepsRunning=self._drain.steps_running,
            drainSeconds=self._settings.drain_seconds,
        )
        watch.cancel()
        if not self._drain.wait_until_idle(_until(times.finish)):
            self._drain.stop_steps()
        if not (
            self._drain.wait_until_idle(_until(times.settle)) and watch.wait_until_ended(_until(times.settle))
        ):
            # Threads that hang can't give their steps back: others need not wait for the leases to end.
            worker.ledger.release_all(within_seconds=_until(times.end))
            code = ExitCode.DRAIN_TIMEOUT
        self._tracing.finish(within_seconds=_until(times.end))
        log.info(
            Event.DAEMON_STOPPED, f"Stopped with exit code {code.value}", exitCode=code.value, reason=reason
        )
        return code

    def _stop_early(self, stop: StopRequested) -> ExitCode:
        """Stop before there is anything to drain."""
        self._notify.stopping(ends_at=stop.at + GRACE_SECONDS)
        log.info(Event.DAEMON_STOPPED, "Stopped while starting", exitCode=0, reason=stop.reason)
        return ExitCode.OK

    def _readiness(self) -> HealthReport:
        return readiness(
            is_draining=self._drain.is_draining,
            stream_is_open=self._watch is not None and self._watch.is_open,
            unavailable_backends=self._breaker.unavailable_backends if self._breaker else (),
        )

    def _status(self) -> str:
        """What the process does, for `systemctl status`."""
        if self._drain.is_draining:
            return f"Draining, steps running: {self._drain.steps_running}"
        why_not = self._readiness().reason
        if why_not is None:
            return f"Pulling from {self._settings.subscription_path}"
        return f"{'Waiting' if self._was_started else 'Starting'}: {why_not}"


def _until(deadline: float) -> float:
    """Seconds left, never below zero."""
    return max(0.0, deadline - time.monotonic())


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
