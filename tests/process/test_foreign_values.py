"""Values as JavaScript orchestrators and other writers of runs and templates store them."""

from __future__ import annotations

import gzip
import io
import json
from datetime import datetime

import pytest
from PIL import Image

from daemon.cli.demo.resources import sample_templates
from tests.support.charts.local_chart_samples import raw_candles


def test_whole_numbers_that_are_stored_as_doubles(deployment):
    """A run and its templates with doubles give charts of the right size; Chart-IMG gets whole numbers."""
    for template in sample_templates():
        template["request"] |= {"width": 640.0, "height": 480.0}
        deployment.documents.document(f"chart_templates/{template['id']}").set(template)
    run_id, (step_id,) = deployment.put_run(charts=2)
    deployment.documents.document(f"flow_runs/{run_id}").update(
        {deployment.documents.field_path("steps", step_id, "inputs", "minImages"): 2.0}
    )
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        (line,) = daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert (line["status"], line["items"]) == ("SUCCEEDED", 2)
    sizes = [repr((call.body["width"], call.body["height"])) for call in deployment.cloud.chart_img.requests]
    assert sizes == ["(640, 480)"] * 2
    assert repr(deployment.manifest(run_id, step_id)["minImages"]) == "2"


def test_white_space_around_names_is_left_out(deployment):
    """White space around the symbol and the ids in `dependsOn` is left out everywhere."""
    run_id, (step_id,) = deployment.put_run(charts=1)
    run = deployment.run(run_id)
    run["scope"]["symbol"] = " IBM "
    run["steps"][step_id]["dependsOn"] = [f" {name}\n" for name in run["steps"][step_id]["dependsOn"]]
    deployment.documents.document(f"flow_runs/{run_id}").set(run)
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        (line,) = daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert line["status"] == "SUCCEEDED"
    manifest = deployment.manifest(run_id, step_id)
    assert (manifest["symbol"], "_IBM_1d_" in manifest["items"][0]["png_gcs_uri"]) == ("IBM", True)


@pytest.mark.parametrize(
    ("timeframe", "interval"), [("60", "1h"), ("240", "4h"), ("1H", "1h"), ("4H", "4h"), ("120", "2h")]
)
def test_hours_in_other_words(deployment, timeframe, interval):
    """Hours may be written as minutes or with `H`; the run's own word stays in the manifest."""
    run_id, (step_id,) = deployment.put_run(charts=1, timeframe=timeframe)
    with deployment.daemon().started() as daemon:
        deployment.publish_step(run_id, step_id)
        (line,) = daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert line["status"] == "SUCCEEDED"
    (call,) = deployment.cloud.chart_img.requests
    assert call.body["interval"] == interval
    assert deployment.manifest(run_id, step_id)["timeframe"] == timeframe


def test_candles_whose_timeframe_is_written_in_another_way(deployment):
    """A step `1W` is drawn from the candles of the step `1w` that it depends on."""
    run_id, (step_id,) = deployment.put_run(charts=1, timeframe="1W")
    run = deployment.run(run_id)
    (candles,) = run["steps"][step_id]["dependsOn"]
    run["steps"][candles]["timeframe"] = "1w"
    deployment.documents.document(f"flow_runs/{run_id}").set(run)
    deployment.objects.bucket(deployment.bucket).blob("ohlcv.json").upload_from_string(raw_candles("IBM_1w"))
    with deployment.daemon(CHARTS_API_MODE="local").started() as daemon:
        deployment.publish_step(run_id, step_id)
        (line,) = daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert line["status"] == "SUCCEEDED"


def test_a_candle_file_of_another_form(deployment):
    """A gzip with the newest bar first, epoch times and texts is drawn; the manifest says what it had."""
    document = json.loads(raw_candles())
    document["metadata"]["symbol"] = "NYSE:IBM"
    rows = [
        {"t": datetime.fromisoformat(row.pop("date")).timestamp(), **row, "close": str(row["close"])}
        for row in document["data"]
    ]
    document["data"] = [None, *reversed(rows)]
    raw = gzip.compress(json.dumps(document).encode("utf-8-sig"))
    deployment.objects.bucket(deployment.bucket).blob("ohlcv.json").upload_from_string(raw)
    run_id, (step_id,) = deployment.put_run(charts=1)
    with deployment.daemon(CHARTS_API_MODE="local").started() as daemon:
        deployment.publish_step(run_id, step_id)
        (line,) = daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert line["status"] == "SUCCEEDED"
    (item,) = deployment.manifest(run_id, step_id)["items"]
    assert item["meta"]["candleNotes"] == {
        "gzip": 1,
        "byteOrderMark": 1,
        "exchangePrefix": 1,
        "nullBars": 1,
        "newestFirst": 400,
        "epochSeconds": 400,
        "numericStrings": 400,
        "otherKeys": 400,
    }
    assert item["meta"]["lastBar"]["date"] == "2013-03-01T00:00:00Z"
    bucket, _, name = item["png_gcs_uri"].removeprefix("gs://").partition("/")
    png = deployment.objects.bucket(bucket).blob(name).download_as_bytes()
    text = json.loads(Image.open(io.BytesIO(png)).text["chart-values"])
    assert text == {key: item["meta"][key] for key in ("lastBar", "studies")}
