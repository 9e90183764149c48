"""The page of the demo: it shows the demo's results, and none of its texts can become markup."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections import Counter
from dataclasses import replace

from daemon.cli.demo.gallery.page import render_gallery
from daemon.cli.demo.progress import Progress
from daemon.cli.demo.report import ChartFile, DemoReport, Failure, StepResult
from daemon.cli.demo.scenario import RUNS_WITH_FAILURES, DemoStep, MessageKind, messages_for
from tests.support.page.html_page import read_page
from worker_chart_export.inputs.flow_run import StepStatus

HOSTILE = "<script>alert(1)</script>\"'&amp;"
PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 800, 600)
STEP = DemoStep(
    run_id="20260101-000000_IBM_abc123",
    step_id="charts:1d:reference_v1",
    symbol="IBM",
    timeframe="1d",
    requested=2,
    needed=1,
)
CHART = ChartFile(
    template_id="ctpl_price_v1",
    kind="price + MA",
    path="run/step/a b.png",
    png=PNG,
    meta={"provider": "local", "candles": 117, "lastBar": {"date": "2013-03-01T00:00:00Z", "close": 202.91}},
)
SUCCEEDED = StepResult(
    step=STEP,
    status="SUCCEEDED",
    attempt=2,
    seconds=0.25,
    manifest_uri="gs://bucket/manifest.json",
    manifest_path="run/step/manifest.json",
    charts=(CHART,),
    failures=(Failure(template_id="ctpl_gone_v1", code="RENDER_FAILED", message="No such study."),),
)
FAILED = StepResult(
    step=replace(STEP, timeframe="13q", expected=StepStatus.FAILED, lesson="It can't be."),
    status="FAILED",
    attempt=1,
    seconds=None,
    manifest_uri=None,
    manifest_path=None,
    charts=(),
    failures=(Failure(template_id=None, code="VALIDATION_FAILED", message="timeframe: got '13q'."),),
)


def report(*results, **changes):
    """Return the report of a demo with these results."""
    facts = {
        "results": results,
        "messages": messages_for([result.step for result in results]),
        "progress": Progress.of([result.step for result in results]),
        "places": {"Pub/Sub": "embedded", "Firestore": "embedded", "Storage": "of the environment"},
        "seconds": 3.14,
        "made_at": "2026-01-01 00:00 UTC",
    }
    return DemoReport(**{**facts, **changes})


def page_of(*results, **changes):
    """Return the parsed page of these results."""
    return read_page(render_gallery(report(*results, **changes)))


def test_the_summary_is_counted():
    """The summary has the numbers of steps, charts and failures, the time, and the place."""
    page = page_of(SUCCEEDED, FAILED)
    assert page.one("h1").text == "1 chart from 2 steps"
    tiles = [(tile.all("dt")[0].text, tile.all("dd")[0].text) for tile in page.all("div") if tile.all("dt")]
    assert tiles[:4] == [
        ("Steps", "21 succeeded, 1 failed"),
        ("Charts", "1of 4 requested"),
        ("Failures", "21 step, 1 single chart"),
        ("Total time", "3.1 sthe whole demo, with its cloud and daemon"),
    ]
    assert "It ran against Pub/Sub and Firestore embedded and Storage of the environment. " in page.text
    assert "Its messages named their work by the run alone." in page.text


def test_a_demo_without_failures():
    """A demo without failures says so, and one chart is not `1 charts`."""
    page = page_of(replace(SUCCEEDED, failures=()))
    assert "0nothing failed" in page.text
    assert page.one("h1").text == "1 chart from 1 step"
    assert page.all("ul", **{"aria-label": "Failures"}) == []


def test_the_verdict_names_each_step_with_an_unexpected_outcome():
    """The verdict names each step with an unexpected outcome; an intended failure is expected."""
    fine = page_of(SUCCEEDED, FAILED).one("header", **{"class": "page"})
    assert "Every step ended as expected" in fine.text
    surprising = page_of(replace(SUCCEEDED, status="RUNNING"), replace(FAILED, status="SUCCEEDED"))
    summary = surprising.one("p", **{"class": "lead bad"}).text
    assert summary == (
        "Not as expected: IBM 1d is RUNNING instead of SUCCEEDED, IBM 13q is SUCCEEDED instead of FAILED."
    )


def test_the_way_is_counted_from_the_daemons_log():
    """Each stage of a message and each disposition is counted from the daemon's log."""
    progress = Progress.of([STEP])
    named = {"runId": STEP.run_id, "stepId": STEP.step_id, "attempt": 3}
    for line in (
        {"event": "message_received"},
        {"event": "claim_attempt", "claimed": False, **named},
        {"event": "claim_attempt", "claimed": True, **named},
        {"event": "chart_reused", **named},
        {"event": "chart_stored", **named},
        {"event": "manifest_written", **named},
        {"event": "step_completed", "status": "SUCCEEDED", "items": 1, "durationMs": 1250, **named},
        {"event": "message_settled", "disposition": "ack", **named},
        {"event": "message_settled", "disposition": "nack"},
        {"event": "output", "message": "not a line of JSON"},
    ):
        progress.record(line)
    (step,) = progress.steps.values()
    assert (step.status, step.attempt, step.seconds, step.charts) == ("SUCCEEDED", 3, 1.25, 1)
    assert progress.is_done
    stations = page_of(SUCCEEDED, progress=progress).one("ol").all("li")
    assert [(item.one("span").text, item.one("strong").text) for item in stations] == [
        ("messages published", "1"),
        ("received", "1"),
        ("steps claimed", "1"),
        ("charts stored", "2"),
        ("manifests written", "1"),
        ("steps finalized", "1"),
        ("messages settled", "2"),
    ]
    assert stations[3].one("small").text == "1 by an earlier attempt"
    assert stations[-1].one("small").text == "1 ack, 1 nack"


def test_a_step_shows_its_outcome_and_its_failures():
    """A failed step shows its code, the code's meaning and the worker's message."""
    page = page_of(SUCCEEDED, FAILED)
    succeeded, failed = page.all("section", **{"class": "step"})
    assert succeeded.one("h3").text == "IBM 1d"
    facts = {row.one("dt").text: row.one("dd").text for row in succeeded.one("dl").all("div")}
    assert facts == {
        "Charts": "1 of 2 made, 1 needed",
        "Attempt": "2",
        "Time": "250 ms",
        "Drawn by": "local",
        "Run and step": "20260101-000000_IBM_abc123 · charts:1d:reference_v1",
        "Manifest": "gs://bucket/manifest.json",
    }
    assert succeeded.one("a", href="run/step/manifest.json")
    assert succeeded.one("ul").one("li").text == (
        "RENDER_FAILED · ctpl_gone_v1The local renderer could not draw the chart. No such study."
    )
    assert failed.one("p", **{"class": "lesson"}).text == "On purpose: It can't be."
    assert failed.one("ul").one("li").text == (
        "VALIDATION_FAILED · The stepThe request is not valid. timeframe: got '13q'."
    )
    rows = [row.text for row in page.one("tbody").all("tr")]
    assert rows == ["IBM 1dSUCCEEDED1 chart not made1 of 22250 ms", "IBM 13qFAILEDVALIDATION_FAILED0 of 21-"]


def test_each_chart_has_a_caption_and_a_link():
    """Each chart has a caption and a link to its file, for screen readers and without the script."""
    figure = page_of(SUCCEEDED).one("figure")
    picture = figure.one("a", href="run/step/a%20b.png").one("img")
    assert picture.attributes["alt"] == "IBM 1d chart: price + MA, template ctpl_price_v1"
    assert picture.attributes["src"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert (picture.attributes["width"], picture.attributes["height"]) == ("800", "600")
    assert figure.one("h4").text == "price + MA"
    assert figure.one("figcaption").text.endswith("ctpl_price_v1117 candles up to 2013-03-01")


def test_a_chart_of_another_provider_shows_only_its_manifest_s_facts():
    """A chart of another provider shows only what the manifest has."""
    chart = replace(CHART, meta={"provider": "chart-img"})
    assert "candles" not in page_of(replace(SUCCEEDED, charts=(chart,))).one("figure").text


def test_nothing_in_the_page_becomes_markup():
    """Markup in ids, messages and templates is shown as text."""
    step = replace(STEP, run_id=HOSTILE, step_id=HOSTILE, symbol=HOSTILE, timeframe=HOSTILE, lesson=HOSTILE)
    failure = Failure(template_id=HOSTILE, code=HOSTILE, message=HOSTILE)
    chart = replace(CHART, template_id=HOSTILE, kind=HOSTILE, path=HOSTILE, meta={"provider": HOSTILE})
    hostile = replace(
        SUCCEEDED,
        step=step,
        status=HOSTILE,
        manifest_uri=HOSTILE,
        manifest_path=HOSTILE,
        charts=(chart,),
        failures=(failure, replace(failure, template_id=None)),
    )
    page = page_of(hostile, made_at=HOSTILE, places={HOSTILE: HOSTILE})
    assert page.text.count(HOSTILE) > 12
    assert _shape(page) == _shape(page_of(_harmless(hostile)))


def _harmless(hostile):
    """Return the same step with harmless text in place of the hostile text."""
    chart = replace(CHART, meta={"provider": "local"})
    failure = replace(FAILED.failures[0], code="RENDER_FAILED")
    failures = (replace(failure, template_id="ctpl"), failure)
    return replace(
        hostile,
        step=replace(STEP, lesson="plain"),
        status="SURPRISE",
        manifest_uri="gs://bucket/manifest.json",
        manifest_path="run/manifest.json",
        charts=(chart,),
        failures=failures,
    )


def _shape(page):
    """Return its elements with their attributes' names, without break opportunities."""
    return [(found.tag, sorted(found.attributes)) for found in page.everything() if found.tag != "wbr"]


def test_the_page_loads_nothing_and_runs_nothing_but_its_own_script():
    """The content security policy allows only the page's own style and script, by their hashes."""
    page = page_of(SUCCEEDED, FAILED)
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.one(tag).text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    for element in page.everything():
        assert not {name for name in element.attributes if name.startswith("on") or name == "style"}
        for name in ("src", "href"):
            address = element.attributes.get(name)
            assert address is None or address.startswith(("data:", "#", "run/")), address


def test_the_page_is_built_for_screen_readers():
    """The page has a language, landmarks, complete headings, unique ids and valid labels."""
    page = page_of(SUCCEEDED, FAILED)
    assert page.one("html").attributes["lang"] == "en"
    assert len(page.all("main")) == len(page.all("h1")) == 1
    levels = [int(element.tag[1]) for element in page.one("main").all("h2", "h3", "h4")]
    assert all(after <= before + 1 for before, after in zip([1, *levels], levels, strict=False))
    ids = [element.attributes["id"] for element in page.everything() if "id" in element.attributes]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    for element in page.everything():
        assert element.attributes.get("aria-labelledby", ids[0]) in ids
        if str(element.attributes.get("href")).startswith("#"):
            assert element.attributes["href"][1:] in ids


def test_the_demo_uses_every_kind_of_message_and_fails_on_purpose():
    """The demo has each kind of message, a failing step, and a success with a missing chart."""
    steps = [
        replace(STEP, run_id=run.symbol + str(index), timeframe=timeframe)
        for index, run in enumerate(RUNS_WITH_FAILURES)
        for timeframe in run.timeframes
    ]
    assert {message.kind for message in messages_for(steps)} == set(MessageKind)
    assert [run.expected for run in RUNS_WITH_FAILURES].count(StepStatus.FAILED) == 1
    assert any(run.more_templates for run in RUNS_WITH_FAILURES)
