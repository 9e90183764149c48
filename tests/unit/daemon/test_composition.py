"""The chart provider that the composition root builds for the settings."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest

from daemon.chart_providers import build_chart_img, build_chart_provider
from daemon.settings import ExportSettings, load_settings
from localcloud import Fault
from tests.support.charts.local_chart_samples import raw_candles
from tests.support.fakes import chart_request, png_bytes
from tests.support.process.daemons import ROOT
from worker_chart_export.concurrency.single_flight import LoadOnce
from worker_chart_export.errors import ChartApiLimitExceeded
from worker_chart_export.timing import SystemClock

STEM = "NYSE_IBM__1d__ctpl_a"
#: A process that can't open a socket: the result of `mock` mode, and of `real` mode.
WITHOUT_SOCKETS = """
import sys

def guard(event, arguments):
    if event.startswith("socket."):
        raise AssertionError(f"a socket: {event} {arguments}")

from contextlib import ExitStack
from daemon.chart_providers import build_chart_img, build_chart_provider
from daemon.settings import ExportSettings, load_settings
from tests.support.fakes import chart_request
from worker_chart_export.timing import SystemClock
from worker_chart_export.errors import ChartApiMockMissing

sys.addaudithook(guard)
settings = load_settings(ExportSettings)
clock = SystemClock()
resources = ExitStack()
provider = build_chart_provider(settings, build_chart_img(settings, None, clock, resources), resources)
print(len(provider.chart(chart_request()).png))
try:
    provider.chart(chart_request(symbol="NYSE:MISSING"))
except ChartApiMockMissing:
    print("missing")
"""


@pytest.fixture
def build(cloud, documents, monkeypatch, tmp_path):
    """Build the provider of an environment."""
    environment = {
        "GOOGLE_CLOUD_PROJECT": "demo-project",
        "CHARTS_BUCKET": "gs://charts-demo",
        "CHART_IMG_BASE_URL": cloud.chart_img.url,
        "CHARTS_FIXTURES_DIR": str(tmp_path),
        "CHART_IMG_ACCOUNTS_JSON": json.dumps([{"id": "first", "apiKey": "key-one"}]),
    }
    with ExitStack() as resources:

        def built(**changes):
            for name, value in (environment | changes).items():
                monkeypatch.setenv(name, value)
            settings, clock = load_settings(ExportSettings), SystemClock()
            return build_chart_provider(
                settings, build_chart_img(settings, documents, clock, resources), resources
            )

        yield built


def test_mock_opens_no_socket(tmp_path):
    """`mock` mode opens no socket and looks up no name, also for a missing fixture."""
    (tmp_path / f"{STEM}.png").write_bytes(png_bytes())
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SOCKETS],
        cwd=ROOT,
        env={
            "GOOGLE_CLOUD_PROJECT": "demo-project",
            "CHARTS_BUCKET": "gs://charts-demo",
            "CHARTS_API_MODE": "mock",
            "CHARTS_FIXTURES_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.returncode) == ([str(len(png_bytes())), "missing"], 0), done.stderr


def test_the_guard_of_that_test_detects_a_socket(tmp_path):
    """The guard of that test detects a socket of `real` mode."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SOCKETS],
        cwd=ROOT,
        env={
            "GOOGLE_CLOUD_PROJECT": "demo-project",
            "CHARTS_BUCKET": "gs://charts-demo",
            "CHARTS_API_MODE": "record",
            "CHARTS_FIXTURES_DIR": str(tmp_path),
            "CHART_IMG_ACCOUNTS_JSON": json.dumps([{"id": "first", "apiKey": "k", "dailyLimit": 1}]),
            "FIRESTORE_EMULATOR_HOST": "127.0.0.1:1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""


@pytest.mark.parametrize("mode", ["real", "record"])
def test_the_fallback_draws_what_no_account_is_left_for(build, cloud, tmp_path, mode):
    """The fallback draws a chart without an account, and the drawing is never recorded."""
    cloud.chart_img.faults.add(Fault(answer="limit_exceeded"))
    provider = build(CHARTS_API_MODE=mode, CHARTS_FALLBACK="local")
    image = provider.chart(replace(chart_request(), candles=LoadOnce(raw_candles)))
    assert (image.provider, image.meta["fallbackFrom"]) == ("local", "chart-img")
    assert list(tmp_path.iterdir()) == []


def test_without_a_fallback_there_is_none(build, cloud):
    """Without a fallback the request fails."""
    cloud.chart_img.faults.add(Fault(answer="limit_exceeded"))
    with pytest.raises(ChartApiLimitExceeded):
        build(CHARTS_API_MODE="real").chart(chart_request())


def test_record_requests_a_chart_once(build, cloud):
    """`record` mode requests a chart once and then uses the fixture."""
    provider = build(CHARTS_API_MODE="record")
    assert [provider.chart(chart_request()).provider for _ in range(3)] == ["chart-img", "mock", "mock"]
    assert cloud.chart_img.calls["advanced-chart"] == 1
