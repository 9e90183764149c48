"""The life of the daemon: start, keep a stream open until a stop or a refusal, drain, exit.

All of it runs in the main thread, which waits for a request to stop or for the end of the stream.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from daemon.composition import build_daemon, build_worker
from daemon.exit import ExitCode
from daemon.http.page.live_page import LivePage
from daemon.http.probes import health_routes, register_gauges
from daemon.http.server import HealthServer
from daemon.lifecycle.drain import Drain, DrainTimes
from daemon.lifecycle.interpreter import collect_less, switch_less
from daemon.lifecycle.liveness import Liveness, readiness
from daemon.lifecycle.signals import LAST_ACTION_SECONDS, arm_exit_timer, forward_stop_signals
from daemon.lifecycle.stoppable_wait import StoppableWait, StopRequested
from daemon.lifecycle.systemd import SdNotify, ServiceManager
from daemon.settings import Settings, SettingsError, load_settings, misspelt_settings
from daemon.tracing.setup import Tracing
from worker_chart_export.errors import BackendRefused
from worker_chart_export.observability.line_queue import LineQueue
from worker_chart_export.observability.logs import Event, configure, log

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import TextIO

    from daemon.composition import DaemonParts, Worker
    from daemon.lifecycle.liveness import HealthReport

#: The main loop counts as dead after this time without a tick.
MAIN_WITHIN_SECONDS = 30.0
#: The process ends this long after the end of the drain, even if something hangs.
GRACE_SECONDS = 0.5
#: The time for the release of leases before the process ends at once.
LAST_RELEASE_SECONDS = 0.5
#: The time for log lines that wait at the end for the reader of the output.
FLUSH_SECONDS = 1.0


class Daemon:
    """One daemon process.

    Args:
        settings: Its settings.
        flush_log: Waits until all log lines are written, at most so many seconds.

    Raises:
        SettingsError: A variable of systemd or of tracing is wrong.
    """

    def __init__(
        self, settings: Settings, *, flush_log: Callable[[float], object] = lambda _seconds: None
    ) -> None:
        self._settings = settings
        self._flush_log = flush_log
        self._liveness = Liveness()
        self._waiter = StoppableWait(on_tick=lambda: self._liveness.tick("main"))
        self._drain = Drain(max_delivery_seconds=settings.max_lease_seconds)
        self._parts: DaemonParts | None = None
        self._is_started = False
        self._page = LivePage(
            settings=settings,
            drain=self._drain,
            readiness=self._readiness,
            liveness=self._liveness.health_report,
        )
        self._tracing = Tracing(settings)
        manager = ServiceManager.of(os.environ)
        self._notify = SdNotify(manager, why_dead=self._liveness.why_dead, status=self._status)

    def run(self) -> ExitCode:
        """Run until stopped.

        Raises:
            SettingsError: The health port is busy.
            BackendRefused: There are no credentials.
        """
        settings = self._settings
        with ExitStack() as resources:
            resources.callback(self._notify.close)
            forward_stop_signals(self._request_stop, last_action=self._act_last)
            health = self._health_server()
            health.start()
            resources.callback(health.stop)
            self._liveness.expect("main", within_seconds=MAIN_WITHIN_SECONDS)
            self._notify.start()
            try:  # the search for credentials may take long
                worker = self._waiter.wait_for(lambda: build_worker(settings), name="building")
            except StopRequested as stop:
                self._notify.stopping(ends_at=stop.at + GRACE_SECONDS)
                log.info(Event.DAEMON_STOPPED, "Stopped while starting", exitCode=0, reason=stop.reason)
                return ExitCode.OK
            resources.push(worker.resources)
            self._observe(worker, resources)
            parts = self._parts = build_daemon(
                settings,
                worker,
                drain=self._drain,
                liveness=self._liveness,
                waiter=self._waiter,
                on_stream_open=lambda reason: self._log_open_stream(reason, health.port),
            )
            code = self._serve(parts)
            if code is ExitCode.DRAIN_TIMEOUT:
                resources.pop_all()  # a thread hangs: to close its resources could block
            return code

    def _observe(self, worker: Worker, resources: ExitStack) -> None:
        """Show the worker in the metrics, on the page and in traces until the resources are closed."""
        owner, heartbeats = worker.ledger.owner, worker.heartbeats
        register_gauges(
            settings=self._settings, drain=self._drain, heartbeats=heartbeats, readiness=self._readiness
        )
        page = self._page.watching(owner, worker.accounts, held=heartbeats.held, documents=worker.documents)
        resources.enter_context(page)
        resources.enter_context(self._tracing.watching(owner))

    def _request_stop(self, received: signal.Signals) -> None:
        """Arm the exit timer first, because the main thread may hang."""
        self._arm_exit_timer()
        self._waiter.request_stop(f"signal {received.name}")

    def _arm_exit_timer(self) -> None:
        arm_exit_timer(self._settings.drain_seconds + GRACE_SECONDS)

    def _act_last(self) -> None:
        """Release the leases, so that no other worker waits for their end, and write the last log lines.

        A step that is stopped releases its own lease. That of a step that hangs is released here.
        """
        deadline = time.monotonic() + LAST_RELEASE_SECONDS
        self._drain.stop_steps()
        if self._parts and not self._drain.wait_until_idle(LAST_RELEASE_SECONDS / 2):
            self._parts.worker.ledger.release_all(within_seconds=_seconds_until(deadline))
            self._drain.wait_until_idle(_seconds_until(deadline))
        self._flush_log(LAST_ACTION_SECONDS - LAST_RELEASE_SECONDS)

    def _health_server(self) -> HealthServer:
        host, port = self._settings.health_host, self._settings.health_port
        routes = health_routes(liveness=self._liveness.health_report, readiness=self._readiness)
        try:
            return HealthServer(host=host, port=port, routes=routes | self._page.routes())
        except OSError as error:
            wanted = "HEALTH_HOST, HEALTH_PORT: expected an address to listen on"
            raise SettingsError([f"{wanted}, got {host}:{port} ({error.strerror or error})"]) from error

    def _log_open_stream(self, reason: str, health_port: int) -> None:
        """Log the start of the daemon at the first stream, and a reopened stream later."""
        log.info(
            Event.STREAM_REOPENED if self._is_started else Event.DAEMON_STARTED,
            f"Pulling from {self._settings.subscription_path}",
            reason=reason if self._is_started else None,
            healthPort=health_port,
            concurrency=self._settings.worker_concurrency,
            mode=self._settings.charts_api_mode,
            pid=os.getpid(),
        )
        if not self._is_started:
            self._is_started = True
            self._notify.ready()

    def _serve(self, parts: DaemonParts) -> ExitCode:
        """Keep a stream open until a stop is requested or the subscription is refused; then drain."""
        try:
            self._waiter.wait_for(parts.fleet.look_first, name="fleet")
            parts.start(self._liveness)
            collect_less()
            switch_less()
            parts.supervisor.keep_open()
        except StopRequested as stop:
            code, reason, since = ExitCode.OK, stop.reason, stop.at
        except BackendRefused as error:
            log.warning(Event.STREAM_ENDED, str(error), backend="pubsub")
            code, reason, since = ExitCode.REFUSED, str(error), time.monotonic()
            self._arm_exit_timer()
        return self._stop(code, reason, since=since, parts=parts)

    def _stop(self, code: ExitCode, reason: str, *, since: float, parts: DaemonParts) -> ExitCode:
        """Drain: take no new work, let steps finish, stop those that are left, and send the acks."""
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
        parts.supervisor.cancel()
        if not self._drain.wait_until_idle(_seconds_until(times.finish)):
            self._drain.stop_steps()
        is_idle = self._drain.wait_until_idle(_seconds_until(times.settle))
        if not (is_idle and parts.supervisor.wait_until_ended(_seconds_until(times.settle))):
            # Hanging threads can't release their leases. This does, so that other workers need not wait.
            parts.worker.ledger.release_all(within_seconds=_seconds_until(times.end))
            code = ExitCode.DRAIN_TIMEOUT
        parts.fleet.leave(within_seconds=_seconds_until(times.end))
        self._tracing.finish(within_seconds=_seconds_until(times.end))
        log.info(
            Event.DAEMON_STOPPED, f"Stopped with exit code {code.value}", exitCode=code.value, reason=reason
        )
        return code

    def _readiness(self) -> HealthReport:
        if self._parts is not None:
            return self._parts.readiness()
        return readiness(is_draining=self._drain.is_draining, stream_is_open=False, pauses={})

    def _status(self) -> str:
        """Describe what the process does, for `systemctl status`."""
        if self._drain.is_draining:
            return f"Draining, steps running: {self._drain.steps_running}"
        why_not = self._readiness().reason
        if why_not is None:
            return f"Pulling from {self._settings.subscription_path}"
        return f"{'Waiting' if self._is_started else 'Starting'}: {why_not}"


def _seconds_until(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _read_settings(output: LineQueue | TextIO) -> Settings:
    """Read the settings and configure the log. Names that are probably misspelt are logged in any case."""
    try:
        settings = load_settings(Settings)
        configure(level=settings.log_level, log_format=settings.log_format, stream=output)
    finally:
        for warning in misspelt_settings(os.environ):
            log.warning(Event.SETTING_MISSPELT, warning)
    return settings


def run_daemon() -> ExitCode:
    """Read the settings and run a daemon; errors become log lines and exit codes."""
    try:
        lines = LineQueue(sys.stdout)
    except (OSError, RuntimeError):  # a stream of a test; no more threads
        return _run_daemon(sys.stdout, lambda _seconds: None)
    try:
        return _run_daemon(lines, lines.drain)
    finally:
        lines.drain(FLUSH_SECONDS)


def _run_daemon(output: LineQueue | TextIO, flush_log: Callable[[float], object]) -> ExitCode:
    configure(level="INFO", log_format="json", stream=output)
    try:
        return Daemon(_read_settings(output), flush_log=flush_log).run()
    except SettingsError as error:
        for problem in error.problems:
            log.error(Event.SETTINGS_INVALID, problem)
        return ExitCode.BAD_SETTINGS
    except BackendRefused as error:
        log.error(Event.BACKEND_REFUSED, str(error), backend=error.backend)
        return ExitCode.REFUSED
    except Exception as error:  # noqa: BLE001 - the last chance to log before the process ends
        log.error(Event.INTERNAL_ERROR, f"The daemon failed: {error!r:.300}", exc_info=error)
        return ExitCode.INTERNAL_ERROR
