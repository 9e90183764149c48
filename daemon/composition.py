"""Connect all parts to real clients: the domain as a `Worker`, and the daemon around it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.chart_providers import build_chart_img, build_chart_provider, max_calls, no_account_means
from daemon.clients import firestore_client, storage_client
from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.handling.fleet_member import FleetMember
from daemon.handling.handler import MessageHandler
from daemon.handling.rescue import Rescue
from daemon.lifecycle.liveness import OK, readiness
from daemon.subscription.callback import Delivery, Settlement
from daemon.subscription.publisher import Publisher
from daemon.subscription.quarantine import Quarantine
from daemon.subscription.stream import open_stream
from daemon.subscription.supervisor import Quiet, StreamSupervisor
from worker_chart_export.errors import ACCOUNTS
from worker_chart_export.execution.chart_maker import ChartMaker
from worker_chart_export.execution.pipeline import PipelineLimits, StepPipeline
from worker_chart_export.fleet.heartbeat import WorkerState, WorkerStatus
from worker_chart_export.inputs.template import TemplateStore
from worker_chart_export.ledger.heartbeats import Heartbeats
from worker_chart_export.ledger.step_ledger import StepLedger
from worker_chart_export.observability import metrics
from worker_chart_export.outputs.artifact_store import ArtifactStore
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from daemon.lifecycle.drain import Drain
    from daemon.lifecycle.liveness import HealthReport, Liveness
    from daemon.lifecycle.stoppable_wait import StoppableWait
    from daemon.settings import ExportSettings, Settings
    from worker_chart_export.backends.firestore_client import ReconnectingClient
    from worker_chart_export.charts.chart_img.account_state import AccountState
    from worker_chart_export.charts.chart_img.provider import ChartImgProvider
    from worker_chart_export.timing import Clock

#: A renewal of the leases makes two calls, and each may take until its timeout.
HEART_BEAT_GRACE_SECONDS = 60.0
BREAKER_WITHIN_SECONDS = 120.0
FLEET_WITHIN_SECONDS = 120.0
#: A request waits at most for the batch before its own. A batch takes at most three calls, and each call a
#: minute if Pub/Sub does not answer.
MAX_UNSENT_SECONDS = 420.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The domain, connected to real backends.

    Attributes:
        documents: The Firestore client.
        heartbeats: Renews leases once it is started.
        chart_img: Makes charts with the Chart-IMG accounts; None in modes without accounts.
        no_account_means: What happens to charts while no account is left.
        resources: Closes the clients, the last opened first.
    """

    documents: ReconnectingClient
    ledger: StepLedger
    pipeline: StepPipeline
    artifacts: ArtifactStore
    heartbeats: Heartbeats
    chart_img: ChartImgProvider | None
    no_account_means: str
    clock: Clock
    resources: ExitStack

    def warnings(self) -> tuple[str, ...]:
        """Return what a person has to know: that no account is left, although the worker takes work."""
        why = self.chart_img.why_none_left() if self.chart_img else None
        return () if why is None else (f"{why}. {self.no_account_means}",)

    @property
    def accounts(self) -> Sequence[AccountState]:
        """The states of the Chart-IMG accounts; empty in modes without accounts."""
        return self.chart_img.accounts if self.chart_img else ()


def build_worker(settings: ExportSettings) -> Worker:
    """Build the domain for these settings; no backend is called yet.

    Raises:
        BackendRefused: There are no credentials.
        SettingsError: The environment's proxy or certificates can't be used.
    """
    clock = SystemClock()
    resources = ExitStack()
    documents = firestore_client(settings.google_cloud_project, settings.firestore_db)
    resources.callback(documents.close)
    objects = storage_client(settings.google_cloud_project, connections=max_calls(settings))
    resources.callback(objects.close)
    terms = settings.lease_terms
    heartbeats = Heartbeats(client=documents, terms=terms, clock=clock)
    resources.callback(heartbeats.stop)
    ledger = StepLedger(client=documents, clock=clock, terms=terms, heartbeats=heartbeats)
    artifacts = ArtifactStore(client=objects, bucket=settings.bucket_name)
    chart_img = build_chart_img(settings, documents, clock, resources)
    templates = TemplateStore(client=documents, cache_seconds=settings.template_cache_seconds, clock=clock)
    pipeline = StepPipeline(
        ledger=ledger,
        charts=ChartMaker(
            templates=templates,
            provider=build_chart_provider(settings, chart_img, resources),
            artifacts=artifacts,
            timezone=settings.charts_default_timezone,
            max_png_bytes=settings.charts_max_png_bytes,
        ),
        artifacts=artifacts,
        limits=PipelineLimits(
            request_concurrency=settings.request_concurrency,
            step_timeout_seconds=settings.step_timeout_seconds,
        ),
        clock=clock,
    )
    return Worker(
        documents=documents,
        ledger=ledger,
        pipeline=pipeline,
        artifacts=artifacts,
        heartbeats=heartbeats,
        chart_img=chart_img,
        no_account_means=no_account_means(settings),
        clock=clock,
        resources=resources,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonParts:
    """The parts of a daemon around its worker.

    Attributes:
        worker: The domain.
        breaker: Stops the work while a backend is unavailable. A context manager that probes the backends.
        handler: Turns messages into dispositions.
        callback: Handles and settles the messages of the stream.
        rescue: Works on steps with expired leases once it is started.
        fleet: Follows the pause by an operator.
        supervisor: Keeps the stream open.
        readiness: Returns the report of `/readyz`.
    """

    worker: Worker
    breaker: CircuitBreaker
    handler: MessageHandler
    callback: Delivery
    rescue: Rescue
    fleet: FleetMember
    supervisor: StreamSupervisor
    readiness: Callable[[], HealthReport]

    def start(self, liveness: Liveness) -> None:
        """Start the threads beside the handlers: probes, heart-beats, the rescue and the fleet's."""
        within_seconds = self.worker.ledger.terms.renew_every_seconds + HEART_BEAT_GRACE_SECONDS
        self.worker.resources.enter_context(self.breaker)
        self.breaker.probe_now("storage")  # a worker that can't store charts must not buy any
        self.worker.heartbeats.start(
            liveness.expect("heart-beats", within_seconds=within_seconds),
            on_failure=self.breaker.record_failure,
            on_success=lambda: self.breaker.record_success("firestore"),
        )
        self.rescue.start()
        self.fleet.start()


def build_daemon(
    settings: Settings,
    worker: Worker,
    *,
    drain: Drain,
    liveness: Liveness,
    waiter: StoppableWait,
    on_stream_open: Callable[[str], None] = lambda _reason: None,
) -> DaemonParts:
    """Connect the parts of a daemon; no thread is started and no stream is opened yet.

    `worker.resources` also closes what is opened here.

    Args:
        settings: The settings.
        worker: The domain.
        drain: Counts deliveries and steps, and stops them.
        liveness: Watches the loops of the parts once they are started.
        waiter: How the main thread waits.
        on_stream_open: Called for each opened stream with the reason for opening it.

    Raises:
        BackendRefused: There are no credentials.
    """
    breaker = _circuit_breaker(worker, drain, liveness)
    handler = MessageHandler(
        ledger=worker.ledger,
        pipeline=worker.pipeline,
        breaker=breaker,
        drain=drain,
        clock=worker.clock,
        step_timeout_seconds=settings.step_timeout_seconds,
        not_ready_grace_seconds=settings.not_ready_grace_seconds,
    )
    settlement = Settlement(_quarantine(settings, worker))
    callback = Delivery(handler=handler, settlement=settlement, drain=drain)
    supervisor = StreamSupervisor(
        open_stream=lambda: open_stream(settings, callback),
        on_open=on_stream_open,
        waiter=waiter,
        quiet=Quiet(drain=drain, breaker=breaker),
        breaker=breaker,
        liveness=liveness,
        idle_seconds=settings.stream_idle_seconds,
    )
    _limit_ages(liveness, settings, drain, supervisor)
    report = _readiness(worker, drain, breaker, supervisor)
    return DaemonParts(
        worker=worker,
        breaker=breaker,
        handler=handler,
        callback=callback,
        rescue=_rescue(settings, worker, breaker, drain, liveness),
        fleet=FleetMember(
            client=worker.documents,
            breaker=breaker,
            owner=worker.ledger.owner,
            status=_worker_status(settings, worker, drain, report),
            on_tick=liveness.expect("fleet", within_seconds=FLEET_WITHIN_SECONDS),
        ),
        supervisor=supervisor,
        readiness=report,
    )


def _rescue(
    settings: Settings, worker: Worker, breaker: CircuitBreaker, drain: Drain, liveness: Liveness
) -> Rescue:
    search_seconds = 2 * settings.rescue_interval_seconds + settings.max_lease_seconds
    return Rescue(
        ledger=worker.ledger,
        pipeline=worker.pipeline,
        breaker=breaker,
        drain=drain,
        interval_seconds=settings.rescue_interval_seconds,
        on_tick=liveness.expect("rescue", within_seconds=search_seconds),
    )


def _readiness(
    worker: Worker, drain: Drain, breaker: CircuitBreaker, supervisor: StreamSupervisor
) -> Callable[[], HealthReport]:
    return lambda: readiness(
        is_draining=drain.is_draining,
        stream_is_open=supervisor.is_open,
        pauses=breaker.pauses,
        warnings=worker.warnings(),
    )


def _worker_status(
    settings: Settings, worker: Worker, drain: Drain, report: Callable[[], HealthReport]
) -> Callable[[datetime, datetime], WorkerStatus]:
    """Return what describes this daemon in its heartbeats."""

    def status(started_at: datetime, now: datetime) -> WorkerStatus:
        health = report()
        return WorkerStatus(
            owner=worker.ledger.owner,
            version=metrics.VERSION,
            subscription=settings.subscription_path,
            mode=settings.charts_api_mode.value,
            state=_worker_state(health),
            reason=health.reason or "",
            slots=settings.worker_concurrency,
            steps_running=drain.steps_running,
            started_at=started_at,
            last_seen_at=now,
            refused_accounts={
                state.account.id: reason
                for state in worker.accounts
                if (reason := state.refusal_reason) is not None
            },
        )

    return status


def _worker_state(health: HealthReport) -> WorkerState:
    if health.reason is None:
        return WorkerState.READY
    if health.parts["drain"] != OK:
        return WorkerState.DRAINING
    return WorkerState.NOT_READY if health.parts["intake"] == OK else WorkerState.PAUSED


def _limit_ages(liveness: Liveness, settings: Settings, drain: Drain, supervisor: StreamSupervisor) -> None:
    """Fail when a thread hangs: one that works on a step, or the one of Google's client that sends acks."""
    liveness.limit_age(
        "steps", drain.oldest_step_seconds, max_seconds=settings.max_lease_seconds, failure="one has run"
    )
    liveness.limit_age(
        "acks", supervisor.unsent_seconds, max_seconds=MAX_UNSENT_SECONDS, failure="one was not sent"
    )


def _circuit_breaker(worker: Worker, drain: Drain, liveness: Liveness) -> CircuitBreaker:
    probes = {"firestore": worker.ledger.probe, "storage": worker.artifacts.probe}
    if worker.chart_img is not None:
        probes[ACCOUNTS] = worker.chart_img.probe
    breaker = CircuitBreaker(
        probes=probes,
        on_tick=liveness.expect("intake", within_seconds=BREAKER_WITHIN_SECONDS),
    )
    drain.on_start(breaker.stop)
    return breaker


def _quarantine(settings: Settings, worker: Worker) -> Quarantine | None:
    topic = settings.quarantine_topic_path
    if topic is None:
        return None
    publisher = Publisher()
    worker.resources.callback(publisher.close)
    return Quarantine(publisher=publisher, topic=topic, subscription=settings.subscription_path)
