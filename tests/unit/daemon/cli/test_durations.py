"""Durations in arguments."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from daemon.cli.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
        (" 0s ", timedelta(0)),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_a_number_with_a_unit_is_a_duration(text, duration):
    """The units are seconds, minutes, hours and days."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "90", "s", "-5s", "1.5h", "5 min", "1h30m", "36501d", "999999999d", "٣s"]
)
def test_any_other_text_is_refused_with_the_forms_that_are_taken(text):
    """The error names the forms that are taken."""
    with pytest.raises(typer.BadParameter, match="90s, 30m, 24h or 7d"):
        parse_duration(text)
