"""Connect all parts to real clients: the domain as a `Worker`, and the daemon around it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.clients import firestore_client, storage_client, usable_environment
from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.handling.handler import MessageHandler
from daemon.handling.rescue import Rescue
from daemon.settings import ChartsApiMode, ChartsFallback, ChartsWhenExhausted
from daemon.subscription.callback import Delivery, Settlement
from daemon.subscription.publisher import Publisher
from daemon.subscription.quarantine import Quarantine
from daemon.subscription.stream import open_stream
from daemon.subscription.supervisor import Quiet, StreamSupervisor
from worker_chart_export.errors import ACCOUNTS
from worker_chart_export.execution.chart_maker import ChartMaker
from worker_chart_export.execution.pipeline import PipelineLimits, StepPipeline
from worker_chart_export.inputs.template import TemplateStore
from worker_chart_export.ledger.heartbeats import Heartbeats
from worker_chart_export.ledger.step_ledger import StepLedger
from worker_chart_export.outputs.artifact_store import ArtifactStore
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.lifecycle.drain import Drain
    from daemon.lifecycle.liveness import Liveness
    from daemon.lifecycle.stoppable_wait import StoppableWait
    from daemon.settings import ExportSettings, Settings
    from worker_chart_export.backends.firestore_client import ReconnectingClient
    from worker_chart_export.charts.base import ChartProvider
    from worker_chart_export.charts.chart_img.account_state import AccountState
    from worker_chart_export.charts.chart_img.provider import ChartImgProvider
    from worker_chart_export.charts.fixtures import FixtureProvider
    from worker_chart_export.timing import Clock

#: A renewal of the leases makes two calls, and each may take until its timeout.
HEART_BEAT_GRACE_SECONDS = 60.0
BREAKER_WITHIN_SECONDS = 120.0
#: A request waits at most for the batch before its own. A batch takes at most three calls, and each call a
#: minute if Pub/Sub does not answer.
MAX_UNSENT_SECONDS = 420.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The domain, connected to real backends.

    Attributes:
        heartbeats: Renews leases once it is started.
        chart_img: Makes charts with the Chart-IMG accounts; None in modes without accounts.
        no_account_means: What happens to charts while no account is left.
        resources: Closes the clients, the last opened first.
    """

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
    objects = storage_client(settings.google_cloud_project, connections=_max_calls(settings))
    resources.callback(objects.close)
    terms = settings.lease_terms
    heartbeats = Heartbeats(client=documents, terms=terms, clock=clock)
    resources.callback(heartbeats.stop)
    ledger = StepLedger(client=documents, clock=clock, terms=terms, heartbeats=heartbeats)
    artifacts = ArtifactStore(client=objects, bucket=settings.bucket_name)
    chart_img = _chart_img(settings, documents, clock, resources)
    pipeline = StepPipeline(
        ledger=ledger,
        charts=ChartMaker(
            templates=TemplateStore(
                client=documents, cache_seconds=settings.template_cache_seconds, clock=clock
            ),
            provider=_provider(settings, chart_img, resources),
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
        ledger=ledger,
        pipeline=pipeline,
        artifacts=artifacts,
        heartbeats=heartbeats,
        chart_img=chart_img,
        no_account_means=_no_account_means(settings),
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
        supervisor: Keeps the stream open.
    """

    worker: Worker
    breaker: CircuitBreaker
    handler: MessageHandler
    callback: Delivery
    rescue: Rescue
    supervisor: StreamSupervisor

    def start(self, liveness: Liveness) -> None:
        """Start the threads beside the handlers: probes, heart-beats and the rescue."""
        within_seconds = self.worker.ledger.terms.renew_every_seconds + HEART_BEAT_GRACE_SECONDS
        self.worker.resources.enter_context(self.breaker)
        self.breaker.probe_now("storage")  # a worker that can't store charts must not buy any
        self.worker.heartbeats.start(
            liveness.expect("heart-beats", within_seconds=within_seconds),
            on_failure=self.breaker.record_failure,
            on_success=lambda: self.breaker.record_success("firestore"),
        )
        self.rescue.start()


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
    search_seconds = 2 * settings.rescue_interval_seconds + settings.max_lease_seconds
    parts = DaemonParts(
        worker=worker,
        breaker=breaker,
        handler=handler,
        callback=callback,
        rescue=Rescue(
            ledger=worker.ledger,
            pipeline=worker.pipeline,
            breaker=breaker,
            drain=drain,
            interval_seconds=settings.rescue_interval_seconds,
            on_tick=liveness.expect("rescue", within_seconds=search_seconds),
        ),
        supervisor=StreamSupervisor(
            open_stream=lambda: open_stream(settings, callback),
            on_open=on_stream_open,
            waiter=waiter,
            quiet=Quiet(drain=drain, breaker=breaker),
            breaker=breaker,
            liveness=liveness,
            idle_seconds=settings.stream_idle_seconds,
        ),
    )
    _limit_ages(liveness, settings, drain, parts.supervisor)
    return parts


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


def _max_calls(settings: ExportSettings) -> int:
    """Return how many charts are made at once: each handler works on one step, and so does the rescue."""
    return (settings.worker_concurrency + 1) * settings.request_concurrency


def _waits(settings: ExportSettings) -> bool:
    """Return whether steps wait while no account is left. With a fallback none has to."""
    has_fallback = settings.charts_fallback is not ChartsFallback.NONE
    return settings.charts_when_exhausted is ChartsWhenExhausted.WAIT and not has_fallback


def _no_account_means(settings: ExportSettings) -> str:
    if settings.charts_fallback is ChartsFallback.LOCAL:
        return "Charts are drawn by the local renderer."
    return "Steps wait." if _waits(settings) else "Charts fail."


def _provider(
    settings: ExportSettings, chart_img: ChartImgProvider | None, resources: ExitStack
) -> ChartProvider:
    """Create the chart provider. Only its module is imported: the renderer alone takes long to load."""
    if chart_img is None:
        is_local = settings.charts_api_mode is ChartsApiMode.LOCAL
        return _local(settings, resources) if is_local else _fixtures(settings)
    if settings.charts_api_mode is ChartsApiMode.REAL:
        return _with_fallback(settings, chart_img, resources)
    from worker_chart_export.charts.recorder import RecordingProvider  # noqa: PLC0415

    fixtures = _fixtures(settings)
    recorder = RecordingProvider(folder=fixtures.folder, fixtures=fixtures, real=chart_img)
    # The fallback is outside, so that no local chart is recorded as a chart of Chart-IMG.
    return _with_fallback(settings, recorder, resources)


def _with_fallback(settings: ExportSettings, first: ChartProvider, resources: ExitStack) -> ChartProvider:
    if settings.charts_fallback is ChartsFallback.NONE:
        return first
    from worker_chart_export.charts.fallback import FallbackProvider  # noqa: PLC0415

    return FallbackProvider(first=first, second=_local(settings, resources))


def _local(settings: ExportSettings, resources: ExitStack) -> ChartProvider:
    """Create the local renderer. Its processes are started when they are needed."""
    from worker_chart_export.charts.local.provider import LocalProvider  # noqa: PLC0415

    if not settings.render_processes:
        from worker_chart_export.charts.local.in_process import InProcessRenderer  # noqa: PLC0415

        return LocalProvider(InProcessRenderer(max_png_bytes=settings.charts_max_png_bytes))
    from worker_chart_export.charts.local.processes.pool import RendererPool  # noqa: PLC0415
    from worker_chart_export.charts.local.processes.renderer import ProcessRenderer  # noqa: PLC0415

    pool = RendererPool(processes=settings.render_processes)
    resources.callback(pool.close)
    return LocalProvider(ProcessRenderer(pool, max_png_bytes=settings.charts_max_png_bytes))


def _fixtures(settings: ExportSettings) -> FixtureProvider:
    from worker_chart_export.charts.fixtures import FixtureProvider  # noqa: PLC0415

    if settings.charts_fixtures_dir is None:
        raise AssertionError("checked by the settings")
    return FixtureProvider(settings.charts_fixtures_dir)


def _chart_img(
    settings: ExportSettings, documents: ReconnectingClient, clock: Clock, resources: ExitStack
) -> ChartImgProvider | None:
    if settings.charts_api_mode not in (ChartsApiMode.REAL, ChartsApiMode.RECORD):
        return None
    from worker_chart_export.charts.chart_img.account_state import account_states  # noqa: PLC0415
    from worker_chart_export.charts.chart_img.client import ChartApi  # noqa: PLC0415
    from worker_chart_export.charts.chart_img.provider import ChartImgProvider  # noqa: PLC0415
    from worker_chart_export.charts.chart_img.quota import QuotaLedger  # noqa: PLC0415

    with usable_environment():
        api = ChartApi(
            base_url=settings.chart_img_base_url,
            connections=_max_calls(settings),
            max_png_bytes=settings.charts_max_png_bytes,
        )
    resources.callback(api.close)
    return ChartImgProvider(
        api=api,
        accounts=account_states(settings.accounts, clock),
        quota=QuotaLedger(documents),
        clock=clock,
        max_png_bytes=settings.charts_max_png_bytes,
        waits=_waits(settings),
        read_accounts=settings.read_accounts_again,
    )
