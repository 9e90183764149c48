"""`status` on a terminal: complete, in place, and safe for any text."""

from __future__ import annotations

import pytest

from daemon.cli.status import terminal
from daemon.cli.status.terminal import FullView, LiveView, steps_table
from daemon.cli.status.to_json import report_json
from daemon.cli.status.to_text import changed_lines, report_lines
from daemon.reports.assemble import BucketFacts
from tests.support.fakes import BUCKET
from tests.support.run_reports import (
    HOSTILE,
    URI,
    alone,
    chart_step,
    lease,
    live_on_terminal,
    manifest,
    on_terminal,
    report,
    squeezed,
    words_on_terminal,
)
from worker_chart_export.errors import visible


def test_artifacts_are_links_on_a_terminal_and_the_manifest_can_be_read_there():
    """On a terminal artifacts are links; without links the manifest's URI is shown."""
    shown = alone(chart_step("SUCCEEDED", outputs={"gcs_uri": URI}), manifest=manifest())
    drawn = on_terminal(FullView(shown))
    assert f"https://storage.cloud.google.com/{BUCKET}/ctpl_a.png" in drawn
    assert URI in squeezed(words_on_terminal(FullView(shown)))


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_on_a_narrow_terminal(width):
    """On a narrow terminal long ids, owners and URIs are wrapped and not cut."""
    step_id, owner = "charts:1d:" + "long_" * 30 + "end", "worker-" * 15 + "end"
    error = {"code": "GCS_WRITE_FAILED", "message": "why " * 120 + "end", "details": {"manifestGcsUri": URI}}
    steps = {step_id: chart_step("RUNNING"), "other": chart_step("FAILED", error=error)}
    drawn = words_on_terminal(FullView(report(steps, {step_id: lease(owner=owner)})), width)
    assert all(len(line) <= width for line in drawn.splitlines())
    for expected in (step_id, owner, URI, error["message"]):
        assert squeezed(expected) in squeezed(drawn)
    assert "…" not in drawn
    assert squeezed("CHART_EXPORT 1d") in squeezed(drawn)


def hostile_report():
    """Return a report with hostile text in every field that others write."""
    error = {"code": HOSTILE, "message": HOSTILE, "details": {HOSTILE: HOSTILE}}
    bad = manifest(failed=())
    bad["items"][0]["chartTemplateId"] = HOSTILE
    steps = {
        HOSTILE: chart_step(HOSTILE, timeframe=HOSTILE, dependsOn=[HOSTILE]),
        "a": chart_step("FAILED", error=error, finishedAt=HOSTILE),
        "b": chart_step("RUNNING"),
        "c": chart_step("SUCCEEDED", outputs={"gcs_uri": f"gs://b/{HOSTILE}"}),
    }
    found = {"c": BucketFacts(manifest=bad), "b": BucketFacts(problem=HOSTILE)}
    run = {"scope": {"symbol": HOSTILE}, "flowKey": HOSTILE}
    return report(steps, {"b": lease(owner=HOSTILE)}, found, **run)


def test_hostile_text_is_shown_as_text():
    """Markup, escape sequences, line breaks and text direction marks are shown as text."""
    shown = hostile_report()
    plain = [*report_lines(shown), *changed_lines(None, shown), report_json(shown)]
    assert all(line == visible(line) for line in plain)
    for view in (FullView(shown), LiveView(shown)):
        drawn = words_on_terminal(view)
        assert all(line == visible(line) for line in drawn.split("\n"))
        assert squeezed("[red]x[/]") in squeezed(drawn)
        styled = on_terminal(view)
        assert "\x07" not in styled
        assert "\x1b[2J" not in styled
        assert "\u202e" not in styled


@pytest.mark.parametrize("height", [8, 24, 60])
def test_a_live_view_is_never_taller_than_the_terminal(height):
    """A live view fits the terminal: urgent rows stay, and the number of hidden rows is shown."""
    steps = {f"charts:{number:03}": chart_step("SUCCEEDED") for number in range(100)}
    steps["charts:050"] = chart_step("FAILED", error={"code": "RENDER_FAILED", "message": "No."})
    drawn = live_on_terminal(LiveView(report(steps), "Firestore is unavailable"), height=height)
    assert len(drawn.splitlines()) <= height
    assert "Firestore is unavailable" in drawn
    assert ("charts:050" in drawn and "more steps do not fit" in drawn) or height == 8


@pytest.mark.parametrize("width", [30, 80])
def test_a_live_view_of_many_steps_draws_only_those_that_fit(monkeypatch, width):
    """A live view builds only the rows that fit, because it is drawn every second."""
    drawn = []

    def counted(steps, **options):
        drawn.extend(steps)
        return steps_table(steps, **options)

    monkeypatch.setattr(terminal, "steps_table", counted)
    steps = {f"charts:{number:04}": chart_step("SUCCEEDED") for number in range(1000)}
    text = live_on_terminal(LiveView(report({**steps, "last": chart_step("FAILED")})), width, height=40)
    assert 30 < len(text.splitlines()) <= 40
    assert "last" in text
    assert len(drawn) < 40


@pytest.mark.parametrize("height", [1, 2, 3])
def test_a_terminal_of_one_line_is_no_error(height):
    """A terminal of one line is no error."""
    drawn = live_on_terminal(LiveView(alone(chart_step("READY"))), height=height)
    assert len(drawn.splitlines()) <= height
