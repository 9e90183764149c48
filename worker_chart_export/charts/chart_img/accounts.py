"""The Chart-IMG accounts: what the settings say of each, and what this process has learned of it."""

from __future__ import annotations

import math
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from worker_chart_export.charts.base import DEFAULT_HEIGHT, DEFAULT_WIDTH
from worker_chart_export.charts.chart_img.rate_limit import RateLimit
from worker_chart_export.charts.chart_img.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import SecretStr

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.timing import Clock

#: Studies and drawings together, width and height, by plan (Chart-IMG's documentation, "Limits").
PLANS = {
    "BASIC": (3, 800, 600),
    "PRO": (5, 1920, 1080),
    "MEGA": (10, 1920, 1600),
    "ULTRA": (25, 2048, 1920),
    "ENTERPRISE": (50, 2048, 1920),
}
USED_UP = "used up for today"
#: How often who waits for an account's first answer looks whether its step goes on.
LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account as configured. The key is kept out of every repr.

    Attributes:
        account_id: Its name, in usage documents, logs and manifests.
        api_key: The secret.
        daily_limit: Calls a day, unless its usage document says otherwise.
        rate_per_second: Calls a second of this process.
        burst: Calls at once of this process.
        plan: One of `PLANS`; None = not known.
        max_parameters: Studies and drawings together; None = what the plan allows.

    Raises:
        ValueError: The key can't stand in an HTTP header.
    """

    account_id: str
    api_key: SecretStr
    daily_limit: int = 44
    rate_per_second: float = 1.0
    burst: int = 3
    plan: str | None = None
    max_parameters: int | None = None

    def __post_init__(self) -> None:
        if re.fullmatch(r"[\x21-\x7e]+", self.api_key.get_secret_value()) is None:
            raise ValueError(f"api_key of account {self.account_id!r}: expected printable ASCII")

    def without_key(self, words: str) -> str:
        """`words` with the key redacted out: servers and libraries quote what they refuse."""
        return redacted(words, self.api_key.get_secret_value())


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a chart asks of an account's plan."""

    parameters: int
    width: int
    height: int

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Self:
        """What a request body asks for."""
        return cls(
            parameters=len(payload.get("studies", [])) + len(payload.get("drawings", [])),
            width=int(payload.get("width", DEFAULT_WIDTH)),
            height=int(payload.get("height", DEFAULT_HEIGHT)),
        )

    def asks_at_least(self, other: Self) -> bool:
        """Whether it is as large as the other in every respect."""
        return (
            self.parameters >= other.parameters and self.width >= other.width and self.height >= other.height
        )


def why_not_on_plan(account: Account, demand: Demand) -> str | None:
    """Why the account's plan does not allow the chart, or None when it does or is not known. Pure."""
    parameters, width, height = PLANS.get(account.plan or "", (None, None, None))
    parameters = account.max_parameters if account.max_parameters is not None else parameters
    if parameters is not None and demand.parameters > parameters:
        return f"{demand.parameters} studies and drawings, its plan allows {parameters}"
    if width is not None and height is not None and (demand.width > width or demand.height > height):
        return f"{demand.width}x{demand.height} pixels, its plan allows {width}x{height}"
    return None


@dataclass(slots=True, eq=False)
class AccountState:
    """What this process knows of an account. Shared by all threads; its times are of the monotonic clock.

    Attributes:
        account: The account.
        rate: Its rate limit in this process.
        disabled: Why it is not used any more, or None.
    """

    account: Account
    rate: RateLimit
    disabled: str | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)
    _has_answered: bool = False
    _is_tried: bool = False
    _used_up_until: float = -math.inf
    _told_until: float = -math.inf
    _refused: tuple[tuple[Demand, str], ...] = ()

    def why_unusable(self, now: float) -> str | None:
        """Why it gives no chart now, or None."""
        if self.disabled is not None:
            return self.disabled
        return USED_UP if now < self._used_up_until else None

    def why_refused(self, demand: Demand) -> str | None:
        """Its words to a chart that asked for no more than this one, if its plan was too small for that."""
        return next((words for other, words in self._refused if demand.asks_at_least(other)), None)

    def refuse(self, demand: Demand, words: str) -> None:
        """Its plan is too small for such charts."""
        with self._changed:
            kept = [pair for pair in self._refused if not pair[0].asks_at_least(demand)]
            self._refused = (*kept, (demand, words))

    def exhaust(self, *, now: float, until: float, day_ends: float) -> bool:
        """It is used up until then; whether that is news today. An earlier time changes nothing."""
        with self._changed:
            self._used_up_until = max(self._used_up_until, until)
            is_news = self._told_until <= now < day_ends
            if is_news:
                self._told_until = day_ends
            return is_news

    def disable(self, why: str) -> bool:
        """It is not used any more; whether that is news."""
        with self._changed:
            is_news = self.disabled is None
            self.disabled = self.disabled or why
            return is_news

    @contextmanager
    def turn(self, scope: CancelScope, *, patience_seconds: float = math.inf) -> Iterator[bool]:
        """The right to call. Until the first answer one call at a time: a dead key costs one call, not many.

        Gives False when somebody else's first call took longer than the patience.

        Raises:
            WorkerError: What the step was stopped with, or its time is over.
        """
        is_first = self._await_turn(scope, patience_seconds)
        try:
            yield is_first or self._has_answered
        finally:
            if is_first:
                with self._changed:
                    self._is_tried = False
                    self._changed.notify_all()

    def answered(self) -> None:
        """It has answered, so that its key is known: from now on many calls may be under way."""
        with self._changed:
            self._has_answered = True
            self._changed.notify_all()

    def _await_turn(self, scope: CancelScope, patience_seconds: float) -> bool:
        """Whether this is the first call."""
        until = time.monotonic() + patience_seconds
        with self._changed:
            while self._is_tried and not self._has_answered:
                scope.check()
                if (left := until - time.monotonic()) <= 0:
                    return False
                self._changed.wait(min(LOOK_SECONDS, left, scope.remaining_seconds()))
            if self._has_answered:
                return False
            self._is_tried = True
            return True


def account_states(accounts: Sequence[Account], clock: Clock) -> list[AccountState]:
    """The accounts at the start of a process, in order of priority."""
    return [
        AccountState(account, RateLimit(per_second=account.rate_per_second, burst=account.burst, clock=clock))
        for account in accounts
    ]
