"""The header `Retry-After` (RFC 9110, 10.2.3): seconds, or a date. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def seconds_asked(retry_after: str | None, *, date: str | None, now: datetime) -> float | None:
    """How long the server asks to be left alone; None when it does not, or can't be understood.

    Args:
        retry_after: The header.
        date: The answer's own `Date`: both times are then by the server's clock.
        now: Stands in for a `Date` that is missing.
    """
    text = (retry_after or "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    asked = _instant(text)
    return None if asked is None else max(0.0, (asked - (_instant(date) or now)).total_seconds())


def _instant(text: str | None) -> datetime | None:
    try:
        instant = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):  # no date, or one beyond the calendar
        return None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
