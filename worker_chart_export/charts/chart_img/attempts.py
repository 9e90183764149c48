"""The attempts to get one chart: what comes after each answer of Chart-IMG."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker_chart_export.charts.chart_img.account_state import USED_UP
from worker_chart_export.charts.chart_img.answers import Answer, Meaning
from worker_chart_export.errors import ChartApiFailed, ChartApiLimitExceeded, RequestError, StepTimedOut
from worker_chart_export.timing import Backoff, full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.charts.chart_img.account_state import AccountState
    from worker_chart_export.charts.chart_img.accounts import Demand
    from worker_chart_export.charts.chart_img.quota import Counted

MAX_ATTEMPTS = 6
#: Complete answers that are not the requested chart. One may be an accident, but each may cost a paid call.
MAX_COMPLETE = 2
BACKOFF = Backoff(low_seconds=0.5, first_seconds=1.0, max_seconds=8.0)
MIN_TOO_FAST_SECONDS, MAX_TOO_FAST_SECONDS = 0.8, 1.5
#: A longer `Retry-After` is not waited for.
MAX_RETRY_AFTER_SECONDS = 60.0


@dataclass(slots=True, kw_only=True, eq=False)
class ChartAttempts:
    """The attempts to get one chart.

    Attributes:
        request: The chart.
        demand: What the chart needs a plan to allow.
        calls: How many calls were made for it.
        counted: By account: a counted call that used no quota. The next call is not counted again.
        silent: Accounts whose first answer, to another chart, did not come in time.
    """

    request: ChartRequest
    demand: Demand
    calls: int = 0
    counted: dict[AccountState, Counted] = field(default_factory=dict)
    silent: set[AccountState] = field(default_factory=set)
    _failures: int = 0
    _complete: int = 0
    _last: tuple[Answer, AccountState] | None = None
    _passed_over: dict[AccountState, str] = field(default_factory=dict)
    _lacks_time: bool = False

    def why_not(self, state: AccountState, now: float) -> str | None:
        """Return why this chart can't come from this account, or None as far as is known."""
        return (
            state.why_unusable(now) or self._passed_over.get(state) or state.why_too_small(self.demand, now)
        )

    def pass_over(self, state: AccountState, reason: str, *, for_time: bool = False) -> None:
        """Do not try this account again for this chart. `for_time`: only because there is too little time."""
        self._passed_over[state] = reason
        self._lacks_time = self._lacks_time or for_time

    def continue_after(self, answer: Answer, state: AccountState) -> None:
        """Wait for the next attempt, exclude the account for this chart, or raise the final error.

        Raises:
            ChartApiFailed: Another attempt would fail too, or no attempt is left.
            WorkerError: The step was stopped, or its time is used up.
        """
        self._last = (answer, state)
        match answer.meaning:
            case Meaning.TOO_FAST:
                if self._is_pause_too_long(answer):
                    asked = f"asks for a pause of {answer.retry_after_seconds:.0f} s"
                    self.pass_over(state, f"{asked} ({answer.status} {answer.message})", for_time=True)
                else:
                    self.request.scope.sleep(pause_seconds(answer, self._failures))
            case Meaning.TRANSIENT:
                self._failures += 1
                self._complete += answer.is_complete
                is_last = self._failures >= MAX_ATTEMPTS or self._complete >= MAX_COMPLETE
                if is_last or self._is_pause_too_long(answer):
                    raise _failure(answer, state)
                self.request.scope.sleep(pause_seconds(answer, self._failures))
            case Meaning.REFUSED:
                raise _failure(answer, state)
            case Meaning.EXHAUSTED:
                self.pass_over(state, USED_UP)
            case Meaning.OVER_PLAN | Meaning.BAD_KEY | Meaning.CHART:
                pass  # `_update_account` has done everything; the next account is tried at once

    def _is_pause_too_long(self, answer: Answer) -> bool:
        """Return True if the pause that the server requests is longer than the time that is left.

        Raises:
            WorkerError: The step was stopped, or its time is used up.
        """
        self.request.scope.check()
        longest = min(MAX_RETRY_AFTER_SECONDS, self.request.scope.remaining_seconds())
        return (answer.retry_after_seconds or 0.0) > longest

    def no_account_left(self, reasons: Mapping[str, str]) -> RequestError:
        """Return the error of a chart that no account can make.

        If an account was excluded only because there was too little time, return the API's last answer or a
        timeout. A limit error would cause the fallback provider to make the chart.
        """
        listed = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        if not self._lacks_time:
            return ChartApiLimitExceeded(f"No Chart-IMG account is left: {listed}", accounts=dict(reasons))
        if self._last is not None:
            return _failure(*self._last)
        return StepTimedOut(f"The step's time is too short for its charts: {listed}", accounts=dict(reasons))

    def timed_out(self, error: StepTimedOut) -> StepTimedOut:
        """Return the step's timeout with the last answer of Chart-IMG, if there was one."""
        if self._last is None:
            return error
        answer, state = self._last
        shown = f"{answer.status} {answer.message}" if answer.status else f"none ({answer.message})"
        return StepTimedOut(
            f"{error.message} The last answer of Chart-IMG: {shown}",
            **error.details,
            lastStatus=answer.status,
            lastMessage=answer.message,
            accountId=state.account.id,
        )

    def last_failure(self) -> ChartApiFailed | None:
        """Return the failure of the last call, or None when there was none that made an attempt fail."""
        if self._last is None or self._last[0].meaning is not Meaning.TRANSIENT:
            return None
        return _failure(*self._last)


def pause_seconds(answer: Answer, failures: int) -> float:
    """Choose a random pause before the account is called again. It is at least the server's `Retry-After`."""
    if answer.meaning is Meaning.TOO_FAST:
        drawn = full_jitter_seconds(low=MIN_TOO_FAST_SECONDS, high=MAX_TOO_FAST_SECONDS)
    else:
        drawn = BACKOFF.delay_seconds(failures)
    return max(drawn, answer.retry_after_seconds or 0.0)


def _failure(answer: Answer, state: AccountState) -> ChartApiFailed:
    account_id = state.account.id
    if not answer.status:
        return ChartApiFailed(
            f"Chart-IMG did not answer: {answer.message}", cause=answer.message, accountId=account_id
        )
    return ChartApiFailed(
        f"Chart-IMG answered {answer.status}: {answer.message}",
        httpStatus=answer.status,
        apiMessage=answer.message,
        accountId=account_id,
        **({"params": list(answer.params)} if answer.params else {}),
    )
