"""Durations in arguments: `90s`, `30m`, `24h`, `7d`."""

from __future__ import annotations

import re
from datetime import timedelta

import typer

from worker_chart_export.errors import shown

DURATION = re.compile(r"([0-9]{1,9})([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
#: Longer ones would lead to times that Python can't represent.
MAX_DAYS = 36_500


def parse_duration(text: str) -> timedelta:
    """Parse a duration: a whole number with the unit `s`, `m`, `h` or `d`.

    Raises:
        BadParameter: It has another form, or is longer than 36,500 days.
    """
    match = DURATION.fullmatch(text.strip())
    duration = timedelta(**{UNITS[match[2]]: int(match[1])}) if match else None
    if duration is None or duration.days > MAX_DAYS:
        raise typer.BadParameter(f"expected a duration such as 90s, 30m, 24h or 7d, got {shown(text)}")
    return duration
