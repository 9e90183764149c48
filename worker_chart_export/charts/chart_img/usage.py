"""How much of an account's daily quota is used, and how much of it may be taken. Pure.

The document `chart_img_accounts_usage/{accountId}` is shared with other workers: `windowStart` (RFC 3339, UTC
midnight), `usageToday`, optional `dailyLimit`. Its window only moves forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Mapping

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was taken of a quota.

    Attributes:
        granted: Calls that may be made; fewer than asked for when the limit is near.
        used: Calls counted in the window, these included.
        limit: Calls it allows.
        window: The window they count in.
        fields: What the document must say for it to be true; None when it need not change.
    """

    granted: int
    used: int
    limit: int
    window: datetime
    fields: Mapping[str, Any] | None


def window_of(now: datetime) -> datetime:
    """The UTC midnight before `now`."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def seconds_of_day_left(now: datetime) -> float:
    """Seconds until the next UTC midnight."""
    return (window_of(now) + DAY - now).total_seconds()


def take(document: Mapping[str, Any] | None, *, wanted: int, daily_limit: int, now: datetime) -> Taken:
    """Take up to `wanted` calls.

    Args:
        document: The usage document as read, or None when there is none.
        wanted: Calls asked for, at least 1.
        daily_limit: The limit, unless the document has one.
        now: The server's time of the read.
    """
    today = window_of(now)
    stored = _window(document)
    known = stored or today  # one that can't be read counts as today's, so that nothing is spent twice
    used = _used(document) if known >= today else 0
    window = max(known, today)
    limit = _limit(document, daily_limit)
    granted = max(0, min(wanted, limit - used))
    taken = partial(Taken, granted=granted, used=used + granted, limit=limit, window=window)
    start = {"windowStart": window.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if granted:
        return taken(fields={**start, "usageToday": used + granted})
    # A window is written where none can be read, else the account would be used up for ever.
    is_lost = document is not None and stored is None
    return taken(fields=start if is_lost else None)


def _window(document: Mapping[str, Any] | None) -> datetime | None:
    """The document's window, if it can be read."""
    value = None if document is None else document.get("windowStart")
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return window_of(value if value.tzinfo is not None else value.replace(tzinfo=UTC))
    except (ValueError, OverflowError):  # no time at all, or one beyond the calendar in UTC
        return None
    return None


def _used(document: Mapping[str, Any] | None) -> int:
    value = 0 if document is None else document.get("usageToday", 0)
    return max(0, math.ceil(value)) if _is_number(value) else 2**53  # used up, rather than overspent


def _limit(document: Mapping[str, Any] | None, daily_limit: int) -> int:
    value = None if document is None else document.get("dailyLimit")
    return math.floor(value) if _is_number(value) else daily_limit


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
