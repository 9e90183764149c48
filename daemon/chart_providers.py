"""Build the chart provider for the settings. Only its module is imported: the renderer takes long to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.clients import usable_environment
from daemon.settings import ChartsApiMode, ChartsFallback, ChartsWhenExhausted

if TYPE_CHECKING:
    from contextlib import ExitStack

    from daemon.settings import ExportSettings
    from worker_chart_export.backends.firestore_client import ReconnectingClient
    from worker_chart_export.charts.base import ChartProvider
    from worker_chart_export.charts.chart_img.provider import ChartImgProvider
    from worker_chart_export.charts.fixtures import FixtureProvider
    from worker_chart_export.timing import Clock


def max_calls(settings: ExportSettings) -> int:
    """Return how many charts are made at once: each handler works on one step, and so does the rescue."""
    return (settings.worker_concurrency + 1) * settings.request_concurrency


def _waits(settings: ExportSettings) -> bool:
    """Return whether steps wait while no account is left. With a fallback none has to."""
    has_fallback = settings.charts_fallback is not ChartsFallback.NONE
    return settings.charts_when_exhausted is ChartsWhenExhausted.WAIT and not has_fallback


def no_account_means(settings: ExportSettings) -> str:
    """Return what happens to charts while no account is left, as a sentence."""
    if settings.charts_fallback is ChartsFallback.LOCAL:
        return "Charts are drawn by the local renderer."
    return "Steps wait." if _waits(settings) else "Charts fail."


def build_chart_provider(
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


def build_chart_img(
    settings: ExportSettings, documents: ReconnectingClient, clock: Clock, resources: ExitStack
) -> ChartImgProvider | None:
    """Create the provider that calls Chart-IMG, or return None in modes without accounts.

    Raises:
        SettingsError: The environment's proxy or certificates can't be used.
    """
    if settings.charts_api_mode not in (ChartsApiMode.REAL, ChartsApiMode.RECORD):
        return None
    from worker_chart_export.charts.chart_img.account_state import account_states  # noqa: PLC0415
    from worker_chart_export.charts.chart_img.client import ChartApi  # noqa: PLC0415
    from worker_chart_export.charts.chart_img.provider import ChartImgProvider  # noqa: PLC0415
    from worker_chart_export.charts.chart_img.quota import QuotaLedger  # noqa: PLC0415

    with usable_environment():
        api = ChartApi(
            base_url=settings.chart_img_base_url,
            connections=max_calls(settings),
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
