"""The times of a step in `status`; wrong times of others are shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from daemon.cli.status.to_json import report_json
from tests.support.run_reports import NOW, URI, alone, chart_step, lease, lines, manifest


def finished(moment):
    """Return a step that SUCCEEDED at this time; its manifest starts at 10:28:00 of that day."""
    step = chart_step("SUCCEEDED", outputs={"gcs_uri": URI}, finishedAt=moment)
    return alone(step, manifest=manifest())


def as_json(shown):
    """Return the one step's facts."""
    return json.loads(report_json(shown))["steps"][0]


@pytest.mark.parametrize(
    "moment",
    ["2025-12-15T10:29:05Z", "2025-12-15T11:29:05+01:00", datetime(2025, 12, 15, 10, 29, 5, tzinfo=UTC)],
)
def test_a_time_is_rfc_3339_or_a_timestamp_of_firestore(moment):
    """A time may be RFC 3339 text or a Firestore timestamp, and is shown in UTC."""
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
def test_an_invalid_time_is_shown_as_it_is(moment):
    """An invalid time is shown as it is, and the rest of the step is shown too."""
    shown = finished(moment)
    text = lines(shown)
    assert "charts 1/2  time ?" in text
    assert f"started 2025-12-15 10:28:00 UTC, finishedAt is no time: {ascii(moment)[:79]}" in text
    assert "took" not in text
    facts = as_json(shown)
    assert (facts["finishedAt"], facts["tookSeconds"]) == (None, None)
    assert facts["timesWrong"].startswith("finishedAt is no time")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "now"])
def test_an_invalid_time_of_a_manifest_leaves_the_start_unknown(moment):
    """An invalid time in a manifest leaves the start unknown, because its schema checks no times."""
    bad = manifest()
    bad["items"][0]["generatedAt"] = moment
    step = chart_step("SUCCEEDED", outputs={"gcs_uri": URI}, finishedAt="2025-12-15T10:29:05Z")
    text = lines(alone(step, manifest=bad))
    assert "  time finished 2025-12-15 10:29:05 UTC\n" in text


def test_a_finish_before_the_start_is_shown_as_wrong():
    """A step that finished before its start is shown with a wrong time and without a length."""
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
    """Small differences between the server's and the worker's clock are accepted."""
    shown = finished("2025-12-15T10:27:59.5Z")
    assert "took 0 s" in lines(shown)
    assert as_json(shown)["tookSeconds"] == 0


def test_a_running_step_that_starts_in_the_future_is_shown_as_wrong():
    """A RUNNING step that starts in the future is shown as wrong."""
    shown = alone(chart_step("RUNNING"), lease(started_at=NOW + timedelta(seconds=90)))
    assert "it starts 1 min 30 s from now: a clock was wrong" in lines(shown)
    assert "time ?" in lines(shown)
