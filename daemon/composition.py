"""The one place that builds real clients and puts the parts together."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.cloud import firestore
from google.cloud.storage import Client as StorageClient

from daemon.settings import ChartsApiMode, ChartsFallback, SettingsError
from worker_chart_export.backends.errors import client_errors
from worker_chart_export.backends.storage import StorageSession
from worker_chart_export.execution.chart_maker import ChartMaker
from worker_chart_export.execution.pipeline import PipelineLimits, StepPipeline
from worker_chart_export.inputs.template import TemplateStore
from worker_chart_export.ledger.heartbeats import HeartBeats
from worker_chart_export.ledger.step_ledger import StepLedger
from worker_chart_export.outputs.artifact_store import ArtifactStore
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.settings import ExportSettings
    from daemon.settings.accounts import AccountSettings
    from worker_chart_export.charts.base import ChartProvider
    from worker_chart_export.charts.chart_img.accounts import Account, AccountState
    from worker_chart_export.charts.fixtures import FixtureProvider
    from worker_chart_export.timing import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The domain, wired to real backends. `resources.close()` lets go of them, last opened first.

    Attributes:
        heart_beats: To be started by whoever runs steps.
        accounts: What is known of the Chart-IMG accounts; none in modes that have none.
    """

    ledger: StepLedger
    pipeline: StepPipeline
    artifacts: ArtifactStore
    heart_beats: HeartBeats
    accounts: Sequence[AccountState]
    clock: SystemClock
    resources: ExitStack


def build_worker(settings: ExportSettings) -> Worker:
    """Build the domain for these settings; nothing is called yet."""
    clock = SystemClock()
    resources = ExitStack()
    documents = firestore_client(settings.google_cloud_project, settings.firestore_db)
    resources.callback(documents.close)
    objects = storage_client(settings.google_cloud_project, connections=_most_calls(settings))
    resources.callback(objects.close)
    terms = settings.lease_terms
    heart_beats = HeartBeats(client=documents, terms=terms, clock=clock)
    resources.callback(heart_beats.stop)
    ledger = StepLedger(client=documents, clock=clock, terms=terms, heart_beats=heart_beats)
    artifacts = ArtifactStore(client=objects, bucket=settings.bucket_name)
    accounts = _accounts(settings, clock)
    pipeline = StepPipeline(
        ledger=ledger,
        charts=ChartMaker(
            templates=TemplateStore(
                client=documents, cache_seconds=settings.template_cache_seconds, clock=clock
            ),
            provider=_provider(settings, documents, accounts, clock, resources),
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
        heart_beats=heart_beats,
        accounts=accounts,
        clock=clock,
        resources=resources,
    )


def firestore_client(project: str, database: str) -> firestore.Client:
    """A Firestore client; `FIRESTORE_EMULATOR_HOST` works as everywhere.

    Raises:
        BackendRefused: There are no credentials.
    """
    with client_errors("firestore"):
        return firestore.Client(project=project, database=database)


def storage_client(project: str, *, connections: int) -> StorageClient:
    """A Cloud Storage client with a connection a thread; `STORAGE_EMULATOR_HOST` works as everywhere.

    A step that is stopped ends its calls, those for an access token included.

    Raises:
        BackendRefused: There are no credentials.
        SettingsError: The environment's proxy or certificates can't be used.
    """
    with client_errors("storage"):
        client = StorageClient(project=project)
    with usable_environment():
        # The client takes a session only together with credentials, which it is to find by itself.
        client._http_internal = StorageSession(  # noqa: SLF001
            client._credentials,  # noqa: SLF001
            url=client._connection.API_BASE_URL,  # noqa: SLF001
            connections=connections,
        )
    return client


@contextmanager
def usable_environment() -> Iterator[None]:
    """What keeps HTTP connections from being opened are wrong settings; they are not quoted.

    Raises:
        SettingsError: The environment's proxy or certificates can't be used.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        names = "HTTPS_PROXY, ALL_PROXY, REQUESTS_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR"
        got = f"got {type(error).__name__} when it was opened"
        raise SettingsError([f"{names}: expected what an HTTP client can use, {got}"]) from None


def _most_calls(settings: ExportSettings) -> int:
    """Charts made at once: each handler works one step, and so does the rescue."""
    return (settings.worker_concurrency + 1) * settings.request_concurrency


def _accounts(settings: ExportSettings, clock: Clock) -> Sequence[AccountState]:
    if settings.charts_api_mode not in (ChartsApiMode.REAL, ChartsApiMode.RECORD):
        return ()
    from worker_chart_export.charts.chart_img.accounts import account_states  # noqa: PLC0415

    return account_states([chart_img_account(given) for given in settings.accounts], clock)


def _provider(
    settings: ExportSettings,
    documents: firestore.Client,
    accounts: Sequence[AccountState],
    clock: Clock,
    resources: ExitStack,
) -> ChartProvider:
    """The chart provider; each is imported only when it is used (the renderer alone takes long to load)."""
    match settings.charts_api_mode:
        case ChartsApiMode.LOCAL:
            return _local()
        case ChartsApiMode.MOCK:
            return _fixtures(settings)
        case ChartsApiMode.REAL:
            return _or_fallback(settings, _real(settings, documents, accounts, clock, resources))
        case ChartsApiMode.RECORD:
            from worker_chart_export.charts.recorder import RecordingProvider  # noqa: PLC0415

            fixtures = _fixtures(settings)
            real = _real(settings, documents, accounts, clock, resources)
            # Around it, so that no chart drawn here is saved as one of Chart-IMG's.
            return _or_fallback(
                settings, RecordingProvider(folder=fixtures.folder, fixtures=fixtures, real=real)
            )


def _or_fallback(settings: ExportSettings, first: ChartProvider) -> ChartProvider:
    if settings.charts_fallback is ChartsFallback.NONE:
        return first
    from worker_chart_export.charts.fallback import FallbackProvider  # noqa: PLC0415

    return FallbackProvider(first=first, second=_local())


def _local() -> ChartProvider:
    from worker_chart_export.charts.local.provider import LocalProvider  # noqa: PLC0415

    return LocalProvider()


def _fixtures(settings: ExportSettings) -> FixtureProvider:
    from worker_chart_export.charts.fixtures import FixtureProvider  # noqa: PLC0415

    if settings.charts_fixtures_dir is None:
        raise AssertionError("checked by the settings")
    return FixtureProvider(settings.charts_fixtures_dir)


def _real(
    settings: ExportSettings,
    documents: firestore.Client,
    accounts: Sequence[AccountState],
    clock: Clock,
    resources: ExitStack,
) -> ChartProvider:
    from worker_chart_export.charts.chart_img.client import ChartApi  # noqa: PLC0415
    from worker_chart_export.charts.chart_img.provider import ChartImgProvider  # noqa: PLC0415
    from worker_chart_export.charts.chart_img.quota import QuotaLedger  # noqa: PLC0415

    with usable_environment():
        api = ChartApi(base_url=settings.chart_img_base_url, connections=_most_calls(settings))
    resources.callback(api.close)
    return ChartImgProvider(
        api=api,
        accounts=accounts,
        quota=QuotaLedger(documents),
        clock=clock,
        max_png_bytes=settings.charts_max_png_bytes,
    )


def chart_img_account(given: AccountSettings) -> Account:
    """The account that the settings describe."""
    from worker_chart_export.charts.chart_img.accounts import Account  # noqa: PLC0415

    return Account(
        account_id=given.id,
        api_key=given.api_key,
        daily_limit=given.daily_limit,
        rate_per_second=given.rate_per_second,
        burst=given.burst,
        plan=given.plan,
        max_parameters=given.max_parameters,
    )
