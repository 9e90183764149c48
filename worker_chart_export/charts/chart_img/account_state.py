"""What this process has learned of the Chart-IMG accounts: used up, key refused, plan too small.

Nothing that is learned is final: an account is tried again, because a person may have corrected it meanwhile.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker_chart_export.charts.chart_img.accounts import RateLimit, why_not_on_plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker_chart_export.charts.chart_img.accounts import Account, Demand
    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.timing import Clock

USED_UP = "used up for today"
PLAN_TOO_SMALL = "plan too small"
#: A refused key is tried again after this time. It doubles with each further refusal.
FIRST_REFUSAL_SECONDS, MAX_REFUSAL_SECONDS = 60.0, 3600.0
#: A caller that waits for an account's first answer checks its scope this often.
SCOPE_CHECK_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """The last refusal of a key: why, for how many seconds it is not tried, and when it is tried again."""

    reason: str
    seconds: float
    ends_at: float


@dataclass(slots=True, eq=False)
class AccountState:
    """What this process has learned of an account. Shared by all threads. Times are monotonic.

    Attributes:
        account: The account.
        rate: Its rate limit in this process.
    """

    account: Account
    rate: RateLimit
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)
    _has_answered: bool = False
    _is_first_call_under_way: bool = False
    _refusal: _Refusal | None = None
    _used_up_until: float = -math.inf
    _read_again_at: float = -math.inf
    _logged_until: float = -math.inf
    _too_large: tuple[tuple[Demand, str, float], ...] = ()

    def why_unusable(self, now: float) -> str | None:
        """Return why it can't be called now, or None. A call may show that nothing has changed."""
        refusal = self._refusal
        if refusal is not None and now < refusal.ends_at:
            return refusal.reason
        return USED_UP if now < min(self._used_up_until, self._read_again_at) else None

    def why_lost(self, now: float) -> str | None:
        """Return why it could not be used the last time, or None when that is over or nothing is known."""
        refusal = self._refusal
        if refusal is not None:
            return refusal.reason
        return USED_UP if now < self._used_up_until else None

    @property
    def refusal_reason(self) -> str | None:
        """Why its key was refused, until a call shows that the key is valid."""
        refusal = self._refusal
        return None if refusal is None else refusal.reason

    @property
    def is_refused(self) -> bool:
        """True since its key was refused, until a call shows that the key is valid."""
        return self._refusal is not None

    def seconds_until_tried(self, now: float) -> float:
        """Return the seconds until it is tried again; 0 when it is usable."""
        refusal = self._refusal
        refused_until = -math.inf if refusal is None else refusal.ends_at
        return max(0.0, refused_until - now, min(self._used_up_until, self._read_again_at) - now)

    def why_too_small(self, demand: Demand, now: float) -> str | None:
        """Return why its plan does not allow the chart, or None if that is not known.

        The reason is its answer to another chart that was not larger, or a limit of the settings.
        """
        for other, message, ends_at in self._too_large:
            if now < ends_at and demand.is_at_least(other):
                return f"{PLAN_TOO_SMALL}: {message}"
        why = why_not_on_plan(self.account, demand)
        return None if why is None else f"{PLAN_TOO_SMALL}: {why}"

    def refuse_demand(self, demand: Demand, message: str, *, until: float) -> None:
        """Remember until then that its plan does not allow such a chart. Plans change."""
        with self._changed:
            kept = [entry for entry in self._too_large if not entry[0].is_at_least(demand)]
            self._too_large = (*kept, (demand, message, until))

    def exhaust(self, *, now: float, until: float, day_ends: float) -> bool:
        """Mark it as used up until `day_ends`. Return True if this is to be logged.

        It may be tried again at `until`: then the usage document is read again. An earlier time changes
        nothing.
        """
        with self._changed:
            self._used_up_until = max(self._used_up_until, day_ends)
            self._read_again_at = max(self._read_again_at, until)
            is_new = self._logged_until <= now < day_ends
            if is_new:
                self._logged_until = day_ends
            return is_new

    def has_calls(self) -> None:
        """Mark it as not used up: its usage document allows a call."""
        with self._changed:
            self._used_up_until = self._read_again_at = -math.inf

    def refuse_key(self, reason: str, now: float) -> float | None:
        """Note that its key was refused. It is tried again with one call, later after each refusal.

        Returns the seconds until then, or None when this was known: the answer to a call that another one
        had overtaken.
        """
        with self._changed:
            earlier = self._refusal
            if earlier is not None and now < earlier.ends_at:
                return None
            doubled = FIRST_REFUSAL_SECONDS if earlier is None else 2 * earlier.seconds
            seconds = min(MAX_REFUSAL_SECONDS, doubled)
            self._refusal = _Refusal(reason=reason, seconds=seconds, ends_at=now + seconds)
            self._has_answered = False
            return seconds

    def use_key_of(self, account: Account) -> bool:
        """Use the key of this account from now on, with one call at first. Return False if it is the same."""
        with self._changed:
            if account.api_key == self.account.api_key:
                return False
            self.account = self.account.model_copy(update={"api_key": account.api_key})
            self._has_answered = False
            self._refusal = None
            return True

    @contextmanager
    def call_permit(self, scope: CancelScope, *, max_wait_seconds: float = math.inf) -> Iterator[bool]:
        """Allow one call at a time until the first answer, so that an invalid key costs one call, not many.

        The context gets False when the first call of another thread takes longer than `max_wait_seconds`.

        Raises:
            WorkerError: The step was stopped, or its time is used up.
        """
        give_up_at = time.monotonic() + max_wait_seconds
        with self._changed:
            while self._is_first_call_under_way and not self._has_answered:
                scope.check()
                left = give_up_at - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(SCOPE_CHECK_SECONDS, left, scope.remaining_seconds()))
            is_first = not self._is_first_call_under_way and not self._has_answered
            self._is_first_call_under_way |= is_first
        try:
            yield is_first or self._has_answered
        finally:
            if is_first:
                with self._changed:
                    self._is_first_call_under_way = False
                    self._changed.notify_all()

    def answered(self) -> None:
        """Allow many calls at a time: an answer has shown that the key is valid."""
        with self._changed:
            self._has_answered = True
            self._refusal = None
            self._changed.notify_all()


def account_states(accounts: Sequence[Account], clock: Clock) -> list[AccountState]:
    """Create the states of the accounts at the start of a process, in order of priority."""
    return [
        AccountState(account, RateLimit(per_second=account.rate_per_second, burst=account.burst, clock=clock))
        for account in accounts
    ]


def why_none_left(states: Sequence[AccountState], now: float) -> str | None:
    """Return why no account is left, as far as is known, or None if one may make charts or there is none."""
    reasons = {state.account.id: state.why_lost(now) for state in states}
    if not reasons or None in reasons.values():
        return None
    return "No Chart-IMG account is left: " + "; ".join(f"{name}: {why}" for name, why in reasons.items())
