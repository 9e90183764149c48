"""The times of a step in `status`. A wrong time is shown too."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from daemon.cli.status.to_json import report_json
from daemon.cli.status.wording import span
from tests.support.run_reports import NOW, URI, alone, chart_step, lease, lines, manifest


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (44.9, "44 s"),
        (60, "1 min"),
        (65, "1 min 5 s"),
        (3605, "1 h 5 s"),
        (90061, "1 d 1 h"),
        (-30, "0 s"),
    ],
)
def test_spans_are_short(seconds, words):
    """Two units at most; none is shorter than no time."""
    assert span(seconds) == words


def finished(moment):
    """The report of a step that SUCCEEDED then; its manifest says it began at 10:28:00 of that day."""
    step = chart_step("SUCCEEDED", outputs={"gcs_uri": URI}, finishedAt=moment)
    return alone(step, manifest=manifest())


def as_json(shown):
    """The one step's facts."""
    return json.loads(report_json(shown))["steps"][0]


@pytest.mark.parametrize(
    "moment",
    ["2025-12-15T10:29:05Z", "2025-12-15T11:29:05+01:00", datetime(2025, 12, 15, 10, 29, 5, tzinfo=UTC)],
)
def test_a_time_is_rfc_3339_or_a_timestamp_of_firestore(moment):
    """Shown in UTC."""
    shown = finished(moment)
    assert "finished 2025-12-15 10:29:05 UTC, took 1 min 5 s" in lines(shown)
    assert as_json(shown)["tookSeconds"] == 65
    assert as_json(shown)["timesWrong"] is None


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        "2025-12-15T10:29:05",
        "yesterday",
        "",
        ["2025-12-15T10:29:05Z"],
        7,
    ],
)
def test_what_is_no_time_is_shown_as_it_stands(moment):
    """Before the year 1 in UTC, without a zone, or of another kind; the rest of the step is there."""
    shown = finished(moment)
    text = lines(shown)
    assert "charts 1/2  time ?" in text
    assert f"started 2025-12-15 10:28:00 UTC, finishedAt is no time: {ascii(moment)[:79]}" in text
    assert "took" not in text
    facts = as_json(shown)
    assert (facts["finishedAt"], facts["tookSeconds"]) == (None, None)
    assert facts["timesWrong"].startswith("finishedAt is no time")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "now"])
def test_a_manifest_s_time_that_is_none_leaves_the_start_unknown(moment):
    """Its schema does not look at times."""
    bad = manifest()
    bad["items"][0]["generatedAt"] = moment
    step = chart_step("SUCCEEDED", outputs={"gcs_uri": URI}, finishedAt="2025-12-15T10:29:05Z")
    text = lines(alone(step, manifest=bad))
    assert "  time finished 2025-12-15 10:29:05 UTC\n" in text


def test_a_step_that_finished_before_it_started_took_no_time_but_a_wrong_one():
    """Said instead of a length."""
    shown = finished("2025-12-15T10:27:30Z")
    assert "time ?" in lines(shown)
    assert (
        "started 2025-12-15 10:28:00 UTC, finished 2025-12-15 10:27:30 UTC, "
        "it finished 30 s before it started: a clock was wrong"
    ) in lines(shown)
    assert "took" not in lines(shown)
    assert as_json(shown)["tookSeconds"] is None
    assert "30 s before" in as_json(shown)["timesWrong"]


def test_two_clocks_may_differ_a_little():
    """The start is the server's, the end the worker's."""
    shown = finished("2025-12-15T10:27:59.5Z")
    assert "took 0 s" in lines(shown)
    assert as_json(shown)["tookSeconds"] == 0


def test_a_running_step_that_starts_in_the_future_is_said_to_be_wrong():
    """Another program may write such a lease."""
    shown = alone(chart_step("RUNNING"), lease(started_at=NOW + timedelta(seconds=90)))
    assert "it starts 1 min 30 s from now: a clock was wrong" in lines(shown)
    assert "time ?" in lines(shown)
