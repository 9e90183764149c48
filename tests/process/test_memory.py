"""The memory of a real daemon that draws from candle files of any kind: below a pod's limit of 512 MiB."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from zlib_ng import zlib_ng

from localcloud.storage.preconditions import Preconditions
from tests.support.charts.local_chart_samples import raw_candles

#: The limit of a pod is 512 MiB. The rest is for what a test does not load.
MAX_PEAK_MIB = 400
FILE_BYTES = 15_600_000


def _good_file(rows=75_000):
    """A file of 15.6 MB with one bar a minute, as the exporter indents it."""
    first = datetime(2024, 1, 1, tzinfo=UTC)
    bars = [
        {
            "date": (first + timedelta(minutes=n)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "open": 100.25 + n % 7,
            "high": 110.5 + n % 7,
            "low": 90.75 + n % 7,
            "close": 101.125 + n % 7,
            "volume": 1_000_000 + n,
        }
        for n in range(rows)
    ]
    return json.dumps({"metadata": {"symbol": "IBM"}, "data": bars}, indent=4).encode()


def _short_bars():
    """As many bars as fit into 15.6 MB."""
    first = datetime(2000, 1, 1, tzinfo=UTC)
    bars, size = [], 0
    while size < FILE_BYTES:
        date = (first + timedelta(minutes=len(bars))).strftime("%Y%m%dT%H%M")
        bars.append(f'{{"date":"{date}","open":1,"high":1,"low":1,"close":1}}')
        size += len(bars[-1]) + 1
    return f"[{','.join(bars)}]".encode()


def _inflating():
    """1.5 MB of gzip that inflate to 1.5 GB. Python's own `gzip` would take five seconds."""
    packer, spaces = zlib_ng.compressobj(3, wbits=zlib_ng.MAX_WBITS + 16), b" " * 1_000_000
    packed = [packer.compress(b'{"data": ['), *(packer.compress(spaces) for _ in range(1500))]
    return b"".join([*packed, packer.flush()])


def _bar_of_lists():
    return b'{"data": [[' + b",".join([b"[]"] * (FILE_BYTES // 3)) + b"]]}"


FILES = {
    "a good file": _good_file,
    "short bars": _short_bars,
    "gzip": _inflating,
    "a bar of lists": _bar_of_lists,
}
GOOD = ("a good file", "short bars")


def _peak_mib(daemon):
    """Return the most resident memory that the process ever had."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("name", FILES)
def test_no_candle_file_takes_the_memory_of_a_pod(deployment, name):
    """Three charts of each of two steps are made from one file, or fail; then others are drawn."""
    bucket = deployment.objects.bucket(deployment.bucket)
    resource = {"name": "ohlcv.json", "contentEncoding": "gzip" if name == "gzip" else ""}
    # Directly: Google's client uploads large files in a way that the embedded cloud doesn't know.
    deployment.cloud.storage.objects.insert(deployment.bucket, resource, FILES[name](), Preconditions())
    run_id, step_ids = deployment.put_run(steps=2, charts=3)
    with deployment.daemon(fresh=True, CHARTS_API_MODE="local").started() as daemon:
        for step_id in step_ids:
            deployment.publish_step(run_id, step_id)
        lines = daemon.wait_for_event("step_completed", count=2, timeout_seconds=90)
        bucket.blob("ohlcv.json").upload_from_string(raw_candles())
        next_run, (next_step,) = deployment.put_run(charts=3)
        deployment.publish_step(next_run, next_step)
        daemon.wait_for_event("step_completed", count=3)
        peak = _peak_mib(daemon)
        assert daemon.terminate() == 0
    expected = ("SUCCEEDED", 3, None) if name in GOOD else ("FAILED", 0, "OHLCV_UNAVAILABLE")
    assert [(line["status"], line["items"], line.get("code")) for line in lines] == [expected] * 2
    assert deployment.step(next_run, next_step)["status"] == "SUCCEEDED"
    assert peak < MAX_PEAK_MIB
