"""One chart on its way through the accounts: what was tried, what comes next, what it ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_chart_export.charts.chart_img.accounts import USED_UP, Demand, why_not_on_plan
from worker_chart_export.charts.chart_img.answers import Meaning
from worker_chart_export.errors import ChartApiFailed, ChartApiLimitExceeded, RequestError, StepTimedOut
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.charts.chart_img.accounts import AccountState
    from worker_chart_export.charts.chart_img.answers import Answer
    from worker_chart_export.charts.chart_img.quota import Counted

MAX_ATTEMPTS = 6
#: Whole answers that are no chart as asked for: one more may be a slip, a third would be one more bill.
MAX_WHOLE = 2
MIN_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.5, 8.0
MIN_TOO_FAST_SECONDS, MAX_TOO_FAST_SECONDS = 0.8, 1.5
#: Who asks to be left alone for longer is not waited for.
MAX_RETRY_AFTER_SECONDS = 60.0
TOO_BUSY = "asked for more charts than it may give in the step's time"


class Order:
    """One chart on its way.

    Attributes:
        request: What is to be made.
        demand: What that asks of a plan.
        calls: How many were made for it.
        counted: By account: the call that was counted there, and not used up by its answer.
        silent: Accounts whose first answer, awaited by another chart, has not come in time.
    """

    def __init__(self, request: ChartRequest) -> None:
        self.request = request
        self.demand = Demand.of(request.payload)
        self.calls = 0
        self.counted: dict[AccountState, Counted] = {}
        self.silent: set[AccountState] = set()
        self._failed = 0
        self._whole = 0
        self._last: tuple[Answer, AccountState] | None = None
        self._passed_over: dict[AccountState, str] = {}
        self._lacks_time = False

    def why_not(self, state: AccountState) -> str | None:
        """Why this chart can't come from this account, as far as is known."""
        return (
            self._passed_over.get(state)
            or state.why_refused(self.demand)
            or why_not_on_plan(state.account, self.demand)
        )

    def pass_over(self, state: AccountState, why: str, *, for_time: bool = False) -> None:
        """This chart is not tried on this account any more, perhaps only because its step ends too soon."""
        self._passed_over[state] = why
        self._lacks_time = self._lacks_time or for_time

    def go_on_after(self, answer: Answer, state: AccountState) -> None:
        """Wait, or go to the next account, or give up.

        Raises:
            ChartApiFailed: Asking again would not help, or was tried often enough.
            WorkerError: The step was stopped, or its time is over.
        """
        self._last = (answer, state)
        match answer.meaning:
            case Meaning.TOO_FAST:
                self._slow_down(answer, state)
            case Meaning.TROUBLE:
                self._try_again(answer, state)
            case Meaning.REFUSED:
                raise _failure(answer, state)
            case Meaning.EXHAUSTED:
                self.pass_over(state, USED_UP)
            case Meaning.OVER_PLAN | Meaning.BAD_KEY | Meaning.CHART:
                pass  # the account itself was noted; the next one, if there is one, is asked at once

    def _slow_down(self, answer: Answer, state: AccountState) -> None:
        if self._is_too_long(answer):
            why = f"asks for a pause of {answer.retry_after_seconds:.0f} s ({answer.status} {answer.words})"
            self.pass_over(state, why, for_time=True)
        else:
            self.request.scope.sleep(_too_fast_seconds(answer))

    def _try_again(self, answer: Answer, state: AccountState) -> None:
        self._failed += 1
        self._whole += answer.is_whole
        if self._failed >= MAX_ATTEMPTS or self._whole >= MAX_WHOLE or self._is_too_long(answer):
            raise _failure(answer, state)
        self.request.scope.sleep(_delay_seconds(self._failed, answer))

    def _is_too_long(self, answer: Answer) -> bool:
        """Whether the server asks for more time than there is.

        Raises:
            WorkerError: There is none at all.
        """
        self.request.scope.check()
        most = min(MAX_RETRY_AFTER_SECONDS, self.request.scope.remaining_seconds())
        return (answer.retry_after_seconds or 0.0) > most

    def no_account_left(self, reasons: Mapping[str, str]) -> RequestError:
        """What the chart ends with: the API's last word if accounts are left out for want of time alone."""
        told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        if not self._lacks_time:
            return ChartApiLimitExceeded(f"No Chart-IMG account is left: {told}", accounts=dict(reasons))
        if self._last is not None:
            return _failure(*self._last)
        return StepTimedOut(f"The step's time is too short for its charts: {told}", accounts=dict(reasons))

    def timed_out(self, error: StepTimedOut) -> StepTimedOut:
        """The step's end of time, with what had gone wrong before."""
        if self._last is None:
            return error
        answer, state = self._last
        return StepTimedOut(
            f"{error.message} The last answer of Chart-IMG: {_told(answer)}",
            **error.details,
            lastStatus=answer.status,
            lastMessage=answer.words,
            accountId=state.account.account_id,
        )


def _told(answer: Answer) -> str:
    return f"{answer.status} {answer.words}" if answer.status else f"none ({answer.words})"


def _failure(answer: Answer, state: AccountState) -> ChartApiFailed:
    account_id = state.account.account_id
    if not answer.status:
        return ChartApiFailed(
            f"Chart-IMG did not answer: {answer.words}", cause=answer.words, accountId=account_id
        )
    return ChartApiFailed(
        f"Chart-IMG answered {answer.status}: {answer.words}",
        httpStatus=answer.status,
        apiMessage=answer.words,
        accountId=account_id,
        **({"params": list(answer.params)} if answer.params else {}),
    )


def _delay_seconds(failed: int, answer: Answer) -> float:
    """0.5-8 s, drawn evenly up to a bound that doubles each time, or what the server asked for."""
    bound = min(MAX_DELAY_SECONDS, 2.0 * MIN_DELAY_SECONDS * 2 ** (failed - 1))
    drawn = full_jitter_seconds(low=MIN_DELAY_SECONDS, high=bound)
    return max(drawn, answer.retry_after_seconds or 0.0)


def _too_fast_seconds(answer: Answer) -> float:
    asked = answer.retry_after_seconds or 0.0
    return max(asked, full_jitter_seconds(low=MIN_TOO_FAST_SECONDS, high=MAX_TOO_FAST_SECONDS))
