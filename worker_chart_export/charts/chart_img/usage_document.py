"""The usage document of an account, and how many calls it still allows. Pure.

The document `chart_img_accounts_usage/{accountId}` is shared with other workers. Its fields are `windowStart`
(RFC 3339, midnight UTC), `usageToday`, and optionally `dailyLimit`. Its window only moves forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

USAGE = "chart_img_accounts_usage"
DAY = timedelta(days=1)
#: The count of a document whose count can't be read: used up is better than overspent.
UNREADABLE_COUNT = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The calls taken from a quota.

    Attributes:
        granted: Calls that may be made; fewer than wanted when the limit is near.
        used: Calls counted in the window, these included.
        limit: Calls that the window allows.
        window: The window they count in.
        fields: The fields to write, or None when the document need not change.
    """

    granted: int
    used: int
    limit: int
    window: datetime
    fields: Mapping[str, Any] | None


def take(
    document: Mapping[str, Any] | None,
    *,
    wanted: int,
    daily_limit: int,
    now: datetime,
    used_up: datetime | None = None,
) -> Taken:
    """Take up to `wanted` calls from the quota of a usage document. Pure.

    Args:
        document: The usage document as it was read, or None when there is none.
        wanted: How many calls to take; 0 to look only.
        daily_limit: The limit, unless the document has one.
        now: The server's time of the read.
        used_up: The window that Chart-IMG says is used up, if any: the count is raised to the limit in it.
    """
    fields = {} if document is None else document
    today = window_of(now)
    stored = _stored_window(fields.get("windowStart"))
    # A window that can't be read counts as today's, so that no call is spent twice.
    window = max(stored or today, today)
    count, own_limit = _number(fields.get("usageToday", 0)), stored_limit(fields)
    limit = daily_limit if own_limit is None else own_limit
    used = UNREADABLE_COUNT if count is None else max(0, math.ceil(count))
    if stored is not None and stored < today:
        used = 0
    is_used_up = used_up == window and used < limit
    used = limit if is_used_up else used
    granted = max(0, min(wanted, limit - used))
    start = {"windowStart": window.strftime("%Y-%m-%dT%H:%M:%SZ")}
    changes: Mapping[str, Any] | None = None
    if granted or is_used_up:
        changes = {**start, "usageToday": used + granted}
    elif document is not None and stored is None:  # without a window the account would stay used up forever
        changes = start
    return Taken(granted=granted, used=used + granted, limit=limit, window=window, fields=changes)


def stored_limit(fields: Mapping[str, Any]) -> int | None:
    """Return the `dailyLimit` of a usage document, or None if it has none that can be read."""
    limit = _number(fields.get("dailyLimit"))
    return None if limit is None else math.floor(limit)


def window_of(now: datetime) -> datetime:
    """Return the UTC midnight before `now`."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def seconds_of_day_left(now: datetime) -> float:
    """Return the seconds until the next UTC midnight."""
    return (window_of(now) + DAY - now).total_seconds()


def _stored_window(value: Any) -> datetime | None:
    """Return the window of a `windowStart`, if it can be read."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return window_of(value if value.tzinfo is not None else value.replace(tzinfo=UTC))
    except (ValueError, OverflowError):  # not a time, or one that is beyond the calendar in UTC
        return None
    return None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None
