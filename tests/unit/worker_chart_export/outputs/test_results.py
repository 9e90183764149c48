"""What commands read of a step's results in the bucket."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.fakes import BUCKET, NOON, RUN_ID, STEP_ID
from worker_chart_export.errors import ErrorCode, ManifestRefused, ObjectRefused, StepError
from worker_chart_export.inputs.export_request import ExportRequest
from worker_chart_export.outputs.manifest import (
    MAX_MANIFEST_BYTES,
    ManifestFailure,
    ManifestItem,
    build_manifest,
    encode_manifest,
)
from worker_chart_export.outputs.results import StoredResults
from worker_chart_export.timing import SystemClock

FOLDER = f"charts/{RUN_ID}/{STEP_ID}"
URI = f"gs://{BUCKET}/{FOLDER}/manifest.json"
FAILURE = ManifestFailure(template_id="z", error=StepError(ErrorCode.STEP_TIMEOUT, "late"))


@pytest.fixture
def results(objects):
    """Return the reader."""
    return StoredResults(client=objects, clock=SystemClock())


@pytest.fixture
def put(objects):
    """Store objects below the step's folder."""
    return lambda name, content=b"x": (
        objects.bucket(BUCKET).blob(f"{FOLDER}/{name}").upload_from_string(content)
    )


def _manifest(*hours):
    made = [
        ManifestItem(
            template_id=f"t{hour}",
            kind="k",
            png_uri="gs://b/x.png",
            generated_at=NOON + timedelta(hours=hour),
            meta={},
        )
        for hour in hours
    ]
    stored = [*made, FAILURE]
    export = ExportRequest(
        symbol="IBM",
        timeframe="1d",
        interval="1D",
        template_ids=tuple(result.template_id for result in stored),
        min_images=1,
        ohlcv_uri=None,
    )
    return build_manifest(
        run_id=RUN_ID, step_id=STEP_ID, created_at=NOON, export=export, results=stored, claimed_by={}
    )


def test_a_manifest_is_read_and_checked(results, put):
    """The largest one that readers take is taken."""
    content = encode_manifest(_manifest(0))
    put("manifest.json", content + b" " * (MAX_MANIFEST_BYTES - len(content)))
    assert results.manifest(URI) == json.loads(content)


@pytest.mark.parametrize(
    ("uri", "error", "text"),
    [
        ("http://evil/x", ObjectRefused, "got 'http://evil/x'"),
        (URI, ObjectRefused, f"Cloud Storage refused {URI}: there is no such object"),
        (URI.replace("manifest", "large"), ManifestRefused, f"{URI.replace('manifest', 'large')} has more"),
        (URI.replace("manifest", "broken"), ManifestRefused, "broken.json can't be read: .*gzip"),
        (URI.replace("manifest", "other"), ManifestRefused, "not JSON"),
    ],
)
def test_what_is_no_manifest_is_refused(results, put, uri, error, text):
    """The error says why."""
    put("large.json", b" " * (MAX_MANIFEST_BYTES + 1))
    put("broken.json", b"\x1f\x8b")
    put("other.json", b"{")
    with pytest.raises(error, match=text):
        results.manifest(uri)


def test_the_attempts_that_made_the_charts_are_found_by_the_manifest(results, put):
    """They began before its newest chart; a manifest without charts names no time."""
    put("manifest.json", encode_manifest(_manifest(1, 3, 2)))
    put("20260101-000000_IBM_1d_a.png")
    assert results.charts_since(BUCKET, RUN_ID, STEP_ID, URI) == NOON + timedelta(hours=3)
    put("manifest.json", encode_manifest(_manifest()))
    assert results.charts_since(BUCKET, RUN_ID, STEP_ID, URI) is None


def test_without_a_manifest_they_are_found_by_the_names_of_the_charts(results, put):
    """Other objects, and names with an impossible time, count for nothing."""
    assert results.charts_since(BUCKET, RUN_ID, STEP_ID, None) is None
    for name in ("20251399-000000_a.png", "20260101-000000_a.json", "more/20260101-000000_a.png", "x.png"):
        put(name)
    assert results.charts_since(BUCKET, RUN_ID, STEP_ID, None) is None
    for name in ("20251215-235958_a.png", "20251215-235959_b.png", "20241231-235959_a.png"):
        put(name)
    newest = datetime(2025, 12, 15, 23, 59, 59, tzinfo=UTC)
    assert results.charts_since(BUCKET, RUN_ID, STEP_ID, None) == newest
    assert results.count_charts(BUCKET, RUN_ID, STEP_ID, newest) == 1
