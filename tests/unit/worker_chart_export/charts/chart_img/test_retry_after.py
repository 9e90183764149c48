"""How long a server asks to be left alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from worker_chart_export.charts.chart_img.answers import parse_retry_after

NOW = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
LATER = "Wed, 21 Oct 2026 07:28:30 GMT"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0", 0.0), (" 1.5 ", 1.5), ("99999999999", 99999999999.0), ("9" * 400, float("inf"))]
    + [(text, None) for text in (None, "", "-1", "inf", "nan", "1e5", "0x10", "3, 5", "soon", "\u0661")],
)
def test_seconds(header, seconds):
    """Digits, and nothing else that Python takes for a number."""
    assert parse_retry_after(header, date=None, now=NOW) == seconds


@pytest.mark.parametrize(
    ("header", "date", "seconds"),
    [
        (LATER, None, 30.0),
        (LATER, "Wed, 21 Oct 2026 07:28:20 GMT", 10.0),
        (LATER, "never", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", None, 0.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", None, 30.0),
        ("Wed, 99 Oct 2026 07:28:30 GMT", None, None),
    ],
)
def test_a_date_is_counted_from_the_answer_s_own(header, date, seconds):
    """Both by the server's clock, which ours need not agree with."""
    assert parse_retry_after(header, date=date, now=NOW) == seconds
