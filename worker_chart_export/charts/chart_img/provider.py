"""`real` mode: charts from Chart-IMG, account by account. Each call is counted before it is made.

`ChartImgProvider` makes the calls. `ChartAttempts` decides for one chart what comes after each answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from worker_chart_export.charts.base import ChartImage
from worker_chart_export.charts.chart_img.accounts import USED_UP, Demand
from worker_chart_export.charts.chart_img.answers import Answer, Meaning, classify_answer
from worker_chart_export.charts.chart_img.client import NoAnswer, logged_call
from worker_chart_export.errors import (
    ChartApiFailed,
    ChartApiLimitExceeded,
    ChartTooLarge,
    OutOfReach,
    RequestError,
    StepTimedOut,
)
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import Backoff, full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.charts.chart_img.accounts import AccountState
    from worker_chart_export.charts.chart_img.client import ChartApi
    from worker_chart_export.charts.chart_img.quota import Counted, QuotaLedger
    from worker_chart_export.timing import Clock

#: When its usage document says that an account is used up, the document is read again after this time:
#: the operator may have raised the limit.
READ_AGAIN_SECONDS = 60.0
#: A chart waits this long for an account's first answer to another chart, then tries the next account.
FIRST_ANSWER_MAX_WAIT_SECONDS = 10.0
MAX_ATTEMPTS = 6
#: Complete answers that are not the requested chart. One may be an accident, but each may cost a paid call.
MAX_COMPLETE = 2
BACKOFF = Backoff(low_seconds=0.5, first_seconds=1.0, max_seconds=8.0)
MIN_TOO_FAST_SECONDS, MAX_TOO_FAST_SECONDS = 0.8, 1.5
#: A longer `Retry-After` is not waited for.
MAX_RETRY_AFTER_SECONDS = 60.0
TOO_BUSY = "its rate limit does not allow this chart within the step's time"


class ChartImgProvider:
    """Get charts from Chart-IMG. Shared by all threads.

    Args:
        api: Makes the calls.
        accounts: The accounts in order of priority.
        quota: Counts the calls. Its counts carry the end of the server's day.
        clock: Its monotonic clock is used. It has to be the clock of `quota`.
        max_png_bytes: Larger pictures are refused.
    """

    def __init__(
        self,
        *,
        api: ChartApi,
        accounts: Sequence[AccountState],
        quota: QuotaLedger,
        clock: Clock,
        max_png_bytes: int,
    ) -> None:
        self._api = api
        self._accounts = accounts
        self._quota = quota
        self._clock = clock
        self._max_png_bytes = max_png_bytes
        for state in accounts:
            metrics.know_account(state.account.id, daily_limit=state.account.daily_limit)

    def known_failure(self, request: ChartRequest) -> RequestError | None:
        """Return why no account can make the chart, or None if one may."""
        try:
            self._next_account(ChartAttempts(request=request, demand=Demand.of(request.payload)))
        except RequestError as error:
            return error
        return None

    def chart(self, request: ChartRequest) -> ChartImage:
        """Get the chart, with up to six attempts over all accounts, within the step's time.

        Raises:
            ChartApiFailed: Chart-IMG gives no chart.
            ChartTooLarge: The chart is larger than its readers accept.
            ChartApiLimitExceeded: Each account is used up, disabled, or on too small a plan.
            StepTimedOut: The step's time is used up or too short. The error names the last answer.
            OutOfReach: The step can't get enough charts any more, and no call for this one has failed.
            BackendUnavailable: Firestore is unavailable, so that no call can be counted.
            BackendRefused: Firestore refuses.
            WorkerError: The step was stopped.
        """
        attempts = ChartAttempts(request=request, demand=Demand.of(request.payload))
        try:
            while True:
                state = self._next_account(attempts)
                answer = self._try_account(state, attempts)
                if answer is None:
                    continue
                if answer.meaning is Meaning.CHART:
                    meta = {"accountId": state.account.id}
                    return ChartImage(png=answer.png, provider="chart-img", meta=meta)
                attempts.continue_after(answer, state)
        except StepTimedOut as error:
            raise attempts.timed_out(error) from error
        except OutOfReach as error:
            if (failure := attempts.last_failure()) is None:
                raise
            raise failure from error

    def _next_account(self, attempts: ChartAttempts) -> AccountState:
        """Choose the first account that may give this chart. Accounts that were silent too long come last.

        Raises:
            RequestError: There is none.
        """
        reasons: dict[str, str] = {}
        silent: AccountState | None = None
        for state in self._accounts:
            why_not = attempts.why_not(state, self._clock.monotonic())
            if why_not is not None:
                reasons[state.account.id] = why_not
            elif state not in attempts.silent:
                return state
            else:
                silent = silent or state
        if silent is None:
            raise attempts.no_account_left(reasons)
        return silent

    def _try_account(self, state: AccountState, attempts: ChartAttempts) -> Answer | None:
        """Count a call and make it. Return None when the account is of no use for this chart after all."""
        scope = attempts.request.scope
        max_wait = math.inf if state in attempts.silent else FIRST_ANSWER_MAX_WAIT_SECONDS
        with state.call_permit(scope, max_wait_seconds=max_wait) as is_permitted:
            if not is_permitted:
                attempts.silent.add(state)
                return None
            # The answers to other charts may have changed the account during each wait.
            if attempts.why_not(state, self._clock.monotonic()) is not None:
                return None
            if not state.rate.wait(scope):
                attempts.pass_over(state, TOO_BUSY, for_time=True)
                return None
            if attempts.why_not(state, self._clock.monotonic()) is not None:
                return None
            counted = attempts.counted.pop(state, None)
            if counted is None or self._clock.monotonic() >= counted.day_ends:
                counted = self._quota.count(state.account, scope)
            if not counted.granted:
                self._exhaust(state, counted, "its usage document", for_seconds=READ_AGAIN_SECONDS)
                return None
            scope.check()
            answer = self._call(state, attempts)
            self._update_account(answer, counted, state, attempts)
            return answer

    def _call(self, state: AccountState, attempts: ChartAttempts) -> Answer:
        """Call once, and log the call."""
        request = attempts.request
        attempts.calls += 1
        with logged_call(state.account.id, request, number=attempts.calls) as end:
            try:
                response = self._api.post(state.account, request)
                answer = classify_answer(
                    response.status,
                    response.body,
                    width=request.width,
                    height=request.height,
                    max_bytes=self._max_png_bytes,
                    retry_after_seconds=response.retry_after_seconds,
                    redact=state.account.without_key,
                )
                end.outcome = answer.meaning.value
            except NoAnswer as error:
                answer = Answer(
                    meaning=Meaning.TRANSIENT,
                    status=error.status,
                    message=str(error),
                    is_complete=error.status == HTTPStatus.OK,
                    was_sent=error.sent,
                )
                end.outcome = "no_answer"
            except ChartTooLarge as error:
                end.status, end.outcome, end.message = HTTPStatus.OK, "too_large", error.message
                state.answered()
                raise
            end.status, end.message = answer.status, answer.message
            return answer

    def _update_account(
        self, answer: Answer, counted: Counted, state: AccountState, attempts: ChartAttempts
    ) -> None:
        """Update the account from the answer, before another call may use it."""
        match answer.meaning:
            case Meaning.EXHAUSTED:
                self._exhaust(state, counted, "its answer")
            case Meaning.OVER_PLAN:
                state.refuse(attempts.demand, answer.message)
            case Meaning.BAD_KEY:
                reason = f"its key is refused ({answer.status} {answer.message})"
                if state.disable(reason):
                    log.error(
                        Event.CHART_API_KEY_REFUSED,
                        f"A Chart-IMG account is not used any more: {reason}",
                        accountId=state.account.id,
                    )
            case _:
                pass  # the answer does not depend on the account
        if answer.keeps_count:
            attempts.counted[state] = counted
        if answer.proves_key:
            state.answered()

    def _exhaust(
        self, state: AccountState, counted: Counted, source: str, *, for_seconds: float = math.inf
    ) -> None:
        now = self._clock.monotonic()
        until = min(now + for_seconds, counted.day_ends)
        if state.exhaust(now=now, until=until, day_ends=counted.day_ends):
            log.warning(
                Event.CHART_API_LIMIT_EXCEEDED,
                f"A Chart-IMG account is used up for today, according to {source}",
                accountId=state.account.id,
            )


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
        return state.why_unusable(now) or self._passed_over.get(state) or state.why_refused(self.demand)

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
