"""Take the pictures of the live page for the docs: `make page-pictures`.

They show a real daemon on the embedded cloud during a successful and a failing run.
"""

from __future__ import annotations

import io
import json
import sys
import threading
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from daemon.cli.demo.resources import chart_step_id, flow_run, sample_templates
from localcloud import LocalCloud
from localcloud.faults import Fault
from tests.support.cloud.resources import deployment_on
from tests.support.page.browser import started_chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cloud.resources import Deployment
    from tests.support.page.browser import Chromium
    from tests.support.process.daemons import DaemonUnderTest

CANDLES = (("IBM", "1d"), ("AAPL", "1d"), ("GOOG", "1d"), ("IBM", "1w"), ("IBM", "1M"))
#: Decoded images are not painted yet.
PAINTED = """
(async () => {
  const seen = [...document.images].filter((image) => image.getBoundingClientRect().top < innerHeight);
  for (const image of seen) image.decoding = "sync";
  await Promise.all(seen.map((image) => image.decode()));
  for (const _ of seen) await new Promise(requestAnimationFrame);
})()
"""
FILTERED = "?symbol=GOOG&result=FAILED&history=1"
WIDE, NARROW = (1280, 1120), (390, 1680)


def main(folder: Path) -> None:
    """Take all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with started_chromium() as browser:
        with run_that_goes_well() as daemon:
            take(browser, daemon, folder / "demo-1280.png", WIDE)
            take(browser, daemon, folder / "demo-1280-dark.png", WIDE, dark=True)
            take(browser, daemon, folder / "demo-390.png", NARROW)
        with run_that_fails() as daemon:
            take(browser, daemon, folder / "failing-1280.png", WIDE)
            take(browser, daemon, folder / "failing-390.png", NARROW, dark=True)
            take(browser, daemon, folder / "filtered-1280.png", (1280, 1240), query=FILTERED)


def take(
    browser: Chromium,
    daemon: DaemonUnderTest,
    file: Path,
    size: tuple[int, int],
    *,
    dark: bool = False,
    query: str = "",
) -> None:
    """Take one picture of the daemon's page when its thumbnails are loaded."""
    width, height = size
    port = daemon.named("daemon_started")[-1]["healthPort"]
    with browser.tab(width=width, height=height, dark=dark) as tab:
        tab.open(f"http://127.0.0.1:{port}/{query}")
        tab.wait_for("document.querySelectorAll('#finished tbody tr').length > 0")
        tab.wait_for(
            "[...document.images].filter(i => i.getBoundingClientRect().top < innerHeight)"
            ".every(i => i.complete && i.naturalWidth > 0)"
        )
        tab.run(PAINTED)
        few_colours = Image.open(io.BytesIO(tab.picture())).convert("RGB").quantize(256, dither=0)
        few_colours.save(file, optimize=True)


@contextmanager
def run_that_goes_well() -> Iterator[DaemonUnderTest]:
    """Publish a run with real candles and local charts; its last steps are in flight."""
    with LocalCloud.start() as cloud, deployment_on(cloud.environment(), cloud) as deployment:
        go_on = threading.Event()
        with deployment.daemon(CHARTS_API_MODE="local", CHART_IMG_ACCOUNTS_JSON=None).started() as daemon:
            for symbol, timeframe in CANDLES * 2:
                publish_run(deployment, symbol, timeframe)
            daemon.wait_for_event("step_completed", count=2 * len(CANDLES))
            for held in ("_ctpl_price_psar", "_AAPL_1d_ctpl_price_vpvr", "_GOOG_1d_"):
                fault = Fault(method="objects.insert", match=held, before=lambda _: go_on.wait(60))
                deployment.cloud.storage.faults.add(fault)
            for symbol, timeframe in CANDLES[:3]:
                publish_run(deployment, symbol, timeframe)
            daemon.wait_for_event("chart_stored", count=10 * len(CANDLES) + 7)
            yield daemon
            go_on.set()
            daemon.terminate()


@contextmanager
def run_that_fails() -> Iterator[DaemonUnderTest]:
    """Publish runs for which Chart-IMG refuses templates, a key and a quota, and two bad messages."""
    accounts = [
        {"id": "spare", "apiKey": "key-of-the-spare", "dailyLimit": 44},
        {"id": "free-1", "apiKey": "key-that-is-free", "dailyLimit": 3, "ratePerSecond": 50, "burst": 50},
        {"id": "paid", "apiKey": "key-that-is-paid", "dailyLimit": 6, "ratePerSecond": 50, "burst": 50},
    ]
    settings = {"CHART_IMG_ACCOUNTS_JSON": json.dumps(accounts), "CHARTS_FALLBACK": "local"}
    with LocalCloud.start() as cloud, deployment_on(cloud.environment(), cloud) as deployment:
        go_on = threading.Event()
        deployment.cloud.chart_img.faults.add(Fault(match="key-of-the-spare", answer="forbidden"))
        deployment.cloud.chart_img.faults.add(Fault(match="GOOG", answer="invalid_symbol"))
        with deployment.daemon(**settings).started() as daemon:
            for number, (symbol, timeframe) in enumerate((("GOOG", "1d"), ("GOOG", "1d"), *CANDLES[:3]), 1):
                publish_run(deployment, symbol, timeframe)
                daemon.wait_for_event("step_completed", count=number)
            publish_run(
                deployment, "IBM", "1d", templates=["ctpl_price_ma1226_vol_v1", "ctpl_that_nobody_made"]
            )
            publish_run(deployment, "AAPL", "1d", templates=[])
            daemon.wait_for_event("step_completed", count=7)
            deployment.publish(b'{"run": "20251215-102530_IBM_k3f7a"}')
            daemon.wait_for_event("message_rejected")
            deployment.publish_step("20251215-102530_IBM_k3f7a", chart_step_id("1d"))
            daemon.wait_for_event("step_not_ready")
            held = Fault(method="objects.insert", match="_vpvr_", before=lambda _: go_on.wait(60))
            deployment.cloud.storage.faults.add(held)
            publish_run(deployment, "IBM", "1w")
            daemon.wait_for_event("chart_stored", count=1 + 3 * 5 + 1 + 4)
            outage = deployment.cloud.firestore.faults.add(
                Fault(method="BatchGetDocuments", error="UNAVAILABLE")
            )
            for _ in range(5):
                deployment.publish_step(deployment.run_id(), chart_step_id("1d"))
            daemon.wait_for_event("intake_paused")
            yield daemon
            deployment.cloud.firestore.faults.remove(outage)
            go_on.set()
            daemon.terminate()


def publish_run(
    deployment: Deployment, symbol: str, timeframe: str, templates: list[str] | None = None
) -> None:
    """Store a run with candles and one step, which needs one chart, and publish its message."""
    name = f"ohlcv/{symbol}_{timeframe}.json"
    candles = files("worker_chart_export").joinpath("data/samples", name).read_bytes()
    deployment.objects.bucket(deployment.bucket).blob(name).upload_from_string(candles)
    run_id = deployment.run_id(symbol)
    asked = [str(template["id"]) for template in sample_templates()] if templates is None else templates
    candles_uri = f"gs://{deployment.bucket}/{name}"
    document = flow_run(run_id, symbol, {timeframe: candles_uri}, asked, min_images=min(1, len(asked)))
    deployment.documents.document(f"flow_runs/{run_id}").set(document)
    deployment.publish_step(run_id, chart_step_id(timeframe))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
