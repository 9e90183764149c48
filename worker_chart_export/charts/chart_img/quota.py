"""The daily quota of the accounts, counted in Firestore before each call, for all workers together.

All calls of this process that wait for an account share one conditional commit for exactly their number. A
commit without a clear answer is made again: it may waste calls that were counted, but never overspends.
Commits run in threads of their own, so that a step that is stopped need not wait for a backend that hangs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.firestore import Unacceptable, document_of, read_document, send
from worker_chart_export.charts.chart_img.usage import DAY, seconds_of_day_left, take
from worker_chart_export.concurrency.combining_queue import CombiningQueue, QueuedRequest
from worker_chart_export.errors import BackendRefused, StepTimedOut, WorkerError
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import SystemClock, full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from worker_chart_export.charts.chart_img.accounts import Account
    from worker_chart_export.charts.chart_img.usage import Taken
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.timing import Clock

USAGE = "chart_img_accounts_usage"
MIN_PAUSE_SECONDS = 0.02
MAX_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Whether a call was counted.

    Attributes:
        granted: It may be made.
        window: The window it counts in, or that is used up.
        day_ends: When the day it was counted on is over by the server's time, on the monotonic clock. Rather
            too early than too late, by the time that the read took.
    """

    granted: bool
    window: datetime
    day_ends: float


@dataclass(slots=True, kw_only=True, eq=False)
class _Call(QueuedRequest):
    """One call that wants to be counted."""

    scope: CancelScope

    def may_be_counted(self) -> bool:
        """Whether its step goes on; if not, it has its error."""
        try:
            self.scope.check()
        except StepTimedOut as error:
            self.error = self.last_error or error
        except WorkerError as error:
            self.error = error
        return self.error is None


class QuotaLedger:
    """Counts calls. Shared by all threads.

    Args:
        client: A Firestore client.
        clock: Its monotonic clock tells when the server's day ends.
    """

    def __init__(self, client: Any, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._counters: dict[str, _Counter] = {}

    def count(self, account: Account, scope: CancelScope) -> Counted:
        """Count one call, or learn that the limit is reached.

        Raises:
            BackendUnavailable: Firestore was away, or no race could be won, until the step's time was over.
            BackendRefused: Firestore refuses.
            WorkerError: The step was stopped, or its time is over.
        """
        scope.check()
        with self._lock:
            counter = self._counters.get(account.account_id)
            if counter is None:
                counter = self._counters[account.account_id] = _Counter(self._client, account, self._clock)
        return counter.count(scope)


class _Counter:
    """One account's."""

    def __init__(self, client: Any, account: Account, clock: Clock) -> None:
        self._client = client
        self._account = account
        self._clock = clock
        self._failures = 0
        self._strange_window_is_told = False
        self._turns: CombiningQueue[_Call] = CombiningQueue(
            subject=f"the usage of account {account.account_id}",
            choose=list,
            attempt=self._attempt,
            pause=self._pause,
            in_background=True,
        )

    def count(self, scope: CancelScope) -> Counted:
        request = _Call(scope=scope)
        self._turns.wait_for(request, scope.remaining_seconds)
        scope.check_stopped()
        if request.error is not None:
            raise request.error
        counted: Counted = request.settled
        return counted

    def _pause(self) -> None:
        if self._failures:
            bound = min(MAX_PAUSE_SECONDS, MIN_PAUSE_SECONDS * 2 ** min(self._failures, 10))
            threading.Event().wait(full_jitter_seconds(low=0.0, high=bound))

    def _attempt(self, batch: Sequence[_Call]) -> None:
        self._failures += 1
        self._count_all([call for call in batch if call.may_be_counted()])
        self._failures = 0

    def _count_all(self, calls: Sequence[_Call]) -> None:
        if not calls:
            return
        asked_at = self._clock.monotonic()
        snapshot = read_document(self._client, USAGE, self._account.account_id)
        document = document_of(snapshot)
        now = getattr(snapshot, "read_time", None) or self._clock.now()
        taken = take(document, wanted=len(calls), daily_limit=self._account.daily_limit, now=now)
        if taken.fields is not None:
            self._commit(snapshot, document, dict(taken.fields))
        self._show(taken, asked_at + (taken.window - now + DAY).total_seconds())
        self._look_at(taken.window, now)
        day_ends = asked_at + seconds_of_day_left(now)
        for place, call in enumerate(calls):
            granted = place < taken.granted
            call.settled = Counted(granted=granted, window=taken.window, day_ends=day_ends)

    def _show(self, taken: Taken, window_ends: float) -> None:
        metrics.show_quota(
            self._account.account_id,
            used=taken.used,
            limit=taken.limit,
            is_over=lambda: self._clock.monotonic() >= window_ends,
        )

    def _look_at(self, window: datetime, now: datetime) -> None:
        """A window more than a day ahead comes from a broken clock or hand, and may stand for years."""
        if window - now > DAY and not self._strange_window_is_told:
            self._strange_window_is_told = True
            path = f"{USAGE}/{self._account.account_id}"
            log.error(
                Event.QUOTA_WINDOW_AHEAD,
                f"The usage document {path} counts for {window:%Y-%m-%d}, which is yet to come; correct it",
                accountId=self._account.account_id,
                document=path,
            )

    def _commit(self, snapshot: Any, document: Any, fields: dict[str, Any]) -> None:
        """Raises LostRace or OutcomeUnknown, after which it is read and tried again, or BackendRefused."""
        reference = self._client.collection(USAGE).document(self._account.account_id)
        batch = self._client.batch()
        if document is None:
            batch.create(reference, fields)
        else:
            option = self._client.write_option(last_update_time=snapshot.update_time)
            batch.update(reference, fields, option=option)
        try:
            send(batch)
        except Unacceptable as error:
            raise BackendRefused("firestore", str(error)) from error
