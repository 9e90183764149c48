"""Delays with full jitter, the RFC 3339 form of a time, and durations as text."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.handling.handler import DEFER_BACKOFF
from tests.support.fakes import suspend_machine
from worker_chart_export import timing
from worker_chart_export.timing import Backoff, SteadyTime, SystemClock, rfc3339, span


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(1, 10), st.floats(10, 100))
def test_a_delay_stays_between_its_bounds(failures, low, first, highest):
    """A delay is never below the shortest and never above the longest, after any number of failures."""
    backoff = Backoff(low_seconds=low, first_seconds=first, max_seconds=highest)
    assert low <= backoff.delay_seconds(failures) <= highest


@pytest.mark.parametrize(
    ("failures", "high"), [(1, 4.0), (2, 8.0), (3, 16.0), (4, 32.0), (5, 60.0), (50, 60.0)]
)
def test_the_bound_doubles_with_each_failure(monkeypatch, failures, high):
    """The deferral of a message whose backend is unavailable: 1 s up to 4, 8, 16, 32 and then 60 s."""
    drawn = []
    monkeypatch.setattr(timing, "full_jitter_seconds", lambda **bounds: drawn.append(bounds) or 0.0)
    DEFER_BACKOFF.delay_seconds(failures)
    assert drawn == [{"low": 1.0, "high": high}]


def test_a_time_is_written_in_utc_with_microseconds():
    """A time of another zone is converted, and microseconds are always written."""
    local = datetime(2025, 12, 15, 11, 26, 15, 1, tzinfo=timezone(timedelta(hours=1)))
    assert rfc3339(local) == "2025-12-15T10:26:15.000001Z"
    assert rfc3339(datetime(2025, 1, 1, tzinfo=UTC)) == "2025-01-01T00:00:00.000000Z"


def test_the_monotonic_clock_counts_a_suspend_of_the_machine(monkeypatch):
    """The time of a suspend counts, because leases and days go on meanwhile."""
    before = SystemClock().monotonic()
    suspend_machine(monkeypatch, 3600)
    assert SystemClock().monotonic() - before >= 3600


def test_a_system_without_the_boot_clock_gets_the_usual_monotonic_clock(monkeypatch):
    """A system without the boot clock gets `time.monotonic`."""
    monkeypatch.setattr(timing, "BOOT_CLOCK", None)
    earliest = time.monotonic()
    assert earliest <= SystemClock().monotonic() <= time.monotonic()


def test_steady_time_does_not_follow_the_wall_clock(monkeypatch):
    """The correction says by how much the wall clock was set; less than a second is drift."""
    wall, true_time = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + wall[0])
    steady = SteadyTime()
    before = steady()
    for shift, correction in ((-3600.0, -3600.0), (3600.0, 3600.0), (0.5, 0.0)):
        wall[0] = shift
        assert before <= steady() < before + 60
        assert steady.correction_seconds() == pytest.approx(correction, abs=0.4)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0004, "0 s"),
        (0.0006, "1 ms"),
        (0.4, "400 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (3.44, "3.4 s"),
        (5, "5 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (44.9, "44 s"),
        (59.97, "1 min"),
        (65, "1 min 5 s"),
        (3605, "1 h 5 s"),
        (90061, "1 d 1 h"),
        (-30, "0 s"),
    ],
)
def test_spans_are_short(seconds, text):
    """A span has at most two units, milliseconds below a second, and is never negative."""
    assert span(seconds) == text
