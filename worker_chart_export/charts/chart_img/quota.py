"""Count the calls of the accounts in Firestore before they are made, for all workers together.

The document `chart_img_accounts_usage/{accountId}` is shared with other workers. Its fields are `windowStart`
(RFC 3339, midnight UTC), `usageToday`, and optionally `dailyLimit`. Its window only moves forward.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.firestore import Unacceptable, read_documents, send
from worker_chart_export.concurrency.combining_queue import CombiningQueue, QueuedRequest
from worker_chart_export.errors import BackendRefused, BackendUnavailable, StepTimedOut, WorkerError
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import Backoff, SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_chart_export.backends.firestore import LazySnapshot
    from worker_chart_export.charts.chart_img.accounts import Account
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.timing import Clock

USAGE = "chart_img_accounts_usage"
DAY = timedelta(days=1)
#: The pause between attempts to commit a count.
BACKOFF = Backoff(first_seconds=0.04, max_seconds=1.0)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The result of counting one call.

    Attributes:
        granted: The call may be made.
        window: The window it counts in, or that is used up.
        day_ends: When the server's day ends, on the monotonic clock. It may be too early by the duration of
            the read, never too late.
    """

    granted: bool
    window: datetime
    day_ends: float


@dataclass(slots=True, kw_only=True, eq=False)
class _Call(QueuedRequest):
    """A call to count. One with `calls` 0 is not made: it only lets the document be written."""

    scope: CancelScope
    calls: int = 1

    def may_be_counted(self) -> bool:
        """Check the scope. Store its error, and return False, if the call can't be made any more."""
        try:
            self.scope.check()
        except StepTimedOut as error:
            self.error = self.last_error or error
        except WorkerError as error:
            self.error = error
        return self.error is None


class QuotaLedger:
    """Count calls. Shared by all threads.

    All calls of this process that wait for an account share one conditional commit for exactly their number.
    A commit without a clear answer is repeated: it may waste counted calls, but never overspends. Commits run
    in their own threads, so that a stopped step does not wait for a backend that does not answer.

    Args:
        client: A Firestore client.
        clock: Its monotonic clock is used for the end of the server's day.
    """

    def __init__(self, client: Any, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._counters: dict[str, _Counter] = {}

    def count(self, account: Account, scope: CancelScope) -> Counted:
        """Count one call, unless the limit is reached.

        Raises:
            BackendUnavailable: Firestore was unavailable, or other writers won each race, until the step's
                time was used up.
            BackendRefused: Firestore refuses.
            StepTimedOut: The step's time ended before its call was counted.
            WorkerError: The step was stopped.
        """
        scope.check()
        return self._submit(self._counter(account), _Call(scope=scope))

    def use_up(self, account: Account, counted: Counted, scope: CancelScope) -> None:
        """Raise the count of a counted call's window to the limit: Chart-IMG says that it is used up.

        So other workers and the next process make no call to find that out. If Firestore is unavailable, this
        is done with the next count.

        Raises:
            WorkerError: The step was stopped.
        """
        counter = self._counter(account)
        counter.used_up = counted.window
        try:
            self._submit(counter, _Call(scope=scope, calls=0))
        except (BackendUnavailable, BackendRefused, StepTimedOut) as error:
            text = f"The usage document of {account.id} does not say yet that it is used up: {error}"
            log.warning(Event.BACKEND_UNAVAILABLE, text, backend="firestore", accountId=account.id)

    def has_calls_left(self, account: Account) -> Counted:
        """Read whether a call would be granted. Nothing is counted.

        Raises:
            BackendUnavailable: Firestore is unavailable.
            BackendRefused: Firestore refuses.
        """
        return self._counter(account).look()

    def _counter(self, account: Account) -> _Counter:
        with self._lock:
            counter = self._counters.get(account.id)
            if counter is None:
                counter = self._counters[account.id] = _Counter(self._client, account, self._clock)
        return counter

    def _submit(self, counter: _Counter, call: _Call) -> Counted:
        counter.queue.wait_for(call, call.scope.remaining_seconds)
        call.scope.check_stopped()
        if call.error is not None:
            raise call.error
        counted: Counted = call.answer
        return counted


class _Counter:
    """Count the calls of one account.

    Attributes:
        used_up: The window that Chart-IMG says is used up, until the document says so too.
    """

    def __init__(self, client: Any, account: Account, clock: Clock) -> None:
        self._client = client
        self._account = account
        self._document = client.collection(USAGE).document(account.id)
        self._clock = clock
        self._failures = 0
        self._has_logged_window = False
        self.used_up: datetime | None = None
        self.queue: CombiningQueue[_Call] = CombiningQueue(
            choose=list,
            process=self._attempt,
            pause=self._pause,
            timeout_error=lambda: StepTimedOut("The step's time ended before its call could be counted."),
            in_background=True,
        )

    def _pause(self) -> None:
        if self._failures:
            threading.Event().wait(BACKOFF.delay_seconds(self._failures))

    def _attempt(self, batch: Sequence[_Call]) -> None:
        """Count all calls of the batch that may still be made, in one commit.

        Raises:
            BackendUnavailable: Nothing is known to be counted. Read and try again.
            BackendRefused: Firestore refuses.
        """
        calls = [call for call in batch if call.may_be_counted()]
        if not calls:
            return
        self._failures += 1
        read_at, used_up = self._clock.monotonic(), self.used_up
        usage, taken = self._read(wanted=sum(call.calls for call in calls), used_up=used_up)
        if taken.fields is not None:
            write = self._client.batch()
            if usage.fields is None:
                write.create(self._document, taken.fields)
            else:
                option = self._client.write_option(last_update_time=usage.update_time)
                write.update(self._document, taken.fields, option=option)
            try:
                send(write)
            except Unacceptable as error:
                raise BackendRefused("firestore", str(error)) from error
        self._failures = 0
        if self.used_up == used_up:
            self.used_up = None  # written, or of an earlier window
        self._report(taken, usage.read_time, read_at)
        day_ends = read_at + seconds_of_day_left(usage.read_time)
        left = taken.granted
        for call in calls:
            call.answer = Counted(granted=0 < call.calls <= left, window=taken.window, day_ends=day_ends)
            left -= call.calls

    def look(self) -> Counted:
        """Read whether a call would be granted; see `QuotaLedger.has_calls_left`."""
        read_at = self._clock.monotonic()
        usage, taken = self._read(wanted=1, used_up=self.used_up)
        day_ends = read_at + seconds_of_day_left(usage.read_time)
        return Counted(granted=taken.granted > 0, window=taken.window, day_ends=day_ends)

    def _read(self, *, wanted: int, used_up: datetime | None) -> tuple[LazySnapshot, Taken]:
        (usage,) = read_documents(self._client, [self._document])
        taken = take(
            usage.fields,
            wanted=wanted,
            daily_limit=self._account.daily_limit,
            now=usage.read_time,
            used_up=used_up,
        )
        return usage, taken

    def _report(self, taken: Taken, now: datetime, read_at: float) -> None:
        """Show the quota in the metrics. Log once a window that is more than a day ahead.

        Such a window comes from a wrong clock or a wrong edit, and may stay for years.
        """
        window_ends = read_at + (taken.window - now + DAY).total_seconds()
        metrics.show_quota(
            self._account.id,
            used=taken.used,
            limit=taken.limit,
            is_over=lambda: self._clock.monotonic() >= window_ends,
        )
        if taken.window - now > DAY and not self._has_logged_window:
            self._has_logged_window = True
            path = f"{USAGE}/{self._account.id}"
            window = f"{taken.window:%Y-%m-%d}"
            log.error(
                Event.QUOTA_WINDOW_AHEAD,
                f"The usage document {path} counts for {window}, which is in the future; correct it",
                accountId=self._account.id,
                document=path,
            )
