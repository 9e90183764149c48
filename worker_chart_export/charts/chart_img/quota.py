"""Count the calls of the accounts in Firestore before they are made, for all workers together."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.firestore import LostRace, Unacceptable, read_documents, send
from worker_chart_export.backends.firestore_writes import Writes
from worker_chart_export.charts.chart_img.usage_document import (
    DAY,
    USAGE,
    Taken,
    seconds_of_day_left,
    take,
    window_of,
)
from worker_chart_export.concurrency.combining_queue import CombiningQueue, QueuedRequest
from worker_chart_export.errors import (
    FIRESTORE,
    BackendRefused,
    BackendUnavailable,
    StepTimedOut,
    WorkerError,
)
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import Backoff, SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from worker_chart_export.charts.chart_img.accounts import Account
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.timing import Clock

#: The pause between attempts to commit a count.
BACKOFF = Backoff(first_seconds=0.04, max_seconds=1.0)


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
            raise call.take_error()
        counted: Counted = call.answer
        return counted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usage:
    """The usage document at one moment.

    Attributes:
        fields: Its fields, or None when there is no document.
        update_time: When it was last written, or None when there is no document.
        server_time: The server's time of the read, or of the commit that left it so.
        asked_at: When the call was sent, on the monotonic clock.
    """

    fields: Mapping[str, Any] | None
    update_time: datetime | None
    server_time: datetime
    asked_at: float

    @property
    def day_ends(self) -> float:
        """When the server's day ends, on the monotonic clock; see `Counted`."""
        return self.asked_at + seconds_of_day_left(self.server_time)


class _Counter:
    """Count the calls of one account.

    A count needs no read while no other client writes the document. Its precondition is then the update time
    of this process's own last commit: when it holds, the document is as that commit left it. The answer holds
    the server's time, so a commit in a day that began since is seen, and counted again in the new window.

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
        self._own: _Usage | None = None
        self._is_only_writer = False
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
        wanted, used_up = sum(call.calls for call in calls), self.used_up
        taken, usage = self._count_unread(wanted, used_up) or self._count_read(wanted, used_up)
        self._failures = 0
        if self.used_up == used_up:
            self.used_up = None  # written, or of an earlier window
        self._report(taken, usage)
        left = taken.granted
        for call in calls:
            call.answer = Counted(granted=call.calls <= left, window=taken.window, day_ends=usage.day_ends)
            left -= call.calls

    def _count_unread(self, wanted: int, used_up: datetime | None) -> tuple[Taken, _Usage] | None:
        """Count on top of the own last commit. Return None when the document must be read."""
        own = self._own
        if own is None or not self._is_only_writer:
            return None
        taken = self._take(own, wanted, used_up)
        if taken.granted < wanted or taken.fields is None:  # no commit would prove that this is true now
            return None
        try:
            usage = self._commit(own, taken.fields)
        except LostRace:
            return None
        return (taken, usage) if window_of(usage.server_time) <= taken.window else None

    def _count_read(self, wanted: int, used_up: datetime | None) -> tuple[Taken, _Usage]:
        usage = self._read()
        self._is_only_writer = self._own is not None and self._own.update_time == usage.update_time
        taken = self._take(usage, wanted, used_up)
        if taken.fields is None:
            return taken, usage
        usage = self._commit(usage, taken.fields)
        # When the day ended between the read and the commit, the calls count in the new window once more.
        is_of_today = window_of(usage.server_time) <= taken.window
        return (taken, usage) if is_of_today else self._count_read(wanted, used_up=None)

    def _commit(self, usage: _Usage, changes: Mapping[str, Any]) -> _Usage:
        """Write the changes if the document is still as in `usage`. Return the document after it.

        Raises:
            LostRace: Another client wrote the document. Nothing was written.
            BackendUnavailable: Nothing is known to be written.
            BackendRefused: Firestore refuses.
        """
        writes = Writes(self._client)
        if usage.update_time is None:
            writes.create(self._document, changes)
        else:
            writes.update(self._document, changes, update_time=usage.update_time)
        self._own, asked_at = None, self._clock.monotonic()
        try:
            (result,) = send(writes)
        except Unacceptable as error:
            raise BackendRefused(FIRESTORE, str(error)) from error
        self._own = _Usage(
            fields={**(usage.fields or {}), **changes},
            update_time=result.update_time,
            server_time=writes.commit_time,
            asked_at=asked_at,
        )
        return self._own

    def look(self) -> Counted:
        """Read whether a call would be granted; see `QuotaLedger.has_calls_left`."""
        usage = self._read()
        taken = self._take(usage, 1, self.used_up)
        return Counted(granted=taken.granted == 1, window=taken.window, day_ends=usage.day_ends)

    def _read(self) -> _Usage:
        asked_at = self._clock.monotonic()
        (found,) = read_documents(self._client, [self._document])
        return _Usage(
            fields=found.fields,
            update_time=found.update_time,
            server_time=found.read_time,
            asked_at=asked_at,
        )

    def _take(self, usage: _Usage, wanted: int, used_up: datetime | None) -> Taken:
        return take(
            usage.fields,
            wanted=wanted,
            daily_limit=self._account.daily_limit,
            now=usage.server_time,
            used_up=used_up,
        )

    def _report(self, taken: Taken, usage: _Usage) -> None:
        """Show the quota in the metrics. Log once a window that is more than a day ahead.

        Such a window comes from a wrong clock or a wrong edit, and may stay for years.
        """
        window_ends = usage.asked_at + (taken.window - usage.server_time + DAY).total_seconds()
        metrics.show_quota(
            self._account.id,
            used=taken.used,
            limit=taken.limit,
            is_over=lambda: self._clock.monotonic() >= window_ends,
        )
        if taken.window - usage.server_time > DAY and not self._has_logged_window:
            self._has_logged_window = True
            path = f"{USAGE}/{self._account.id}"
            window = f"{taken.window:%Y-%m-%d}"
            log.error(
                Event.QUOTA_WINDOW_AHEAD,
                f"The usage document {path} counts for {window}, which is in the future; correct it",
                accountId=self._account.id,
                document=path,
            )
