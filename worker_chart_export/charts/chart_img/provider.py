"""`real` mode: charts from Chart-IMG, account by account. Each call is counted before it is made."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from worker_chart_export.charts.base import ChartImage
from worker_chart_export.charts.chart_img.accounts import Demand
from worker_chart_export.charts.chart_img.answers import Answer, Meaning, classify_answer
from worker_chart_export.charts.chart_img.attempt import TOO_BUSY, ChartAttempts
from worker_chart_export.charts.chart_img.client import NoAnswer, logged_call
from worker_chart_export.errors import ChartTooLarge, StepTimedOut
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.charts.chart_img.accounts import AccountState
    from worker_chart_export.charts.chart_img.client import ChartApi
    from worker_chart_export.charts.chart_img.quota import Counted, QuotaLedger
    from worker_chart_export.timing import Clock

#: When its usage document says that an account is used up, the document is read again after this time:
#: somebody may have raised the limit.
READ_AGAIN_SECONDS = 60.0
#: A chart waits this long for an account's first answer to another chart, then tries the next account.
FIRST_ANSWER_MAX_WAIT_SECONDS = 10.0


class ChartImgProvider:
    """Get charts from Chart-IMG. Shared by all threads.

    Args:
        api: Makes the calls.
        accounts: The accounts in order of priority.
        quota: Counts the calls, and says when the server's day ends.
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
            metrics.know_account(state.account.account_id, daily_limit=state.account.daily_limit)

    def chart(self, request: ChartRequest) -> ChartImage:
        """Get the chart, with up to six attempts over all accounts, within the step's time.

        Raises:
            ChartApiFailed: Chart-IMG gives no chart.
            ChartTooLarge: The chart is larger than its readers accept.
            ChartApiLimitExceeded: Each account is used up, disabled, or on too small a plan.
            StepTimedOut: The step's time is used up or too short. The error names the last answer.
            BackendUnavailable: Firestore is unavailable, so that no call can be counted.
            BackendRefused: Firestore refuses.
            WorkerError: The step was stopped.
        """
        attempts = ChartAttempts(request=request, demand=Demand.of(request.payload))
        try:
            while True:
                state = self._next_account(attempts)
                answer = self._call_if_counted(state, attempts)
                if answer is None:
                    continue
                if answer.meaning is Meaning.CHART:
                    meta = {"accountId": state.account.account_id}
                    return ChartImage(png=answer.png, provider="chart-img", meta=meta)
                attempts.continue_after(answer, state)
        except StepTimedOut as error:
            raise attempts.timed_out(error) from error

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
                reasons[state.account.account_id] = why_not
            elif state not in attempts.silent:
                return state
            else:
                silent = silent or state
        if silent is None:
            raise attempts.no_account_left(reasons)
        return silent

    def _call_if_counted(self, state: AccountState, attempts: ChartAttempts) -> Answer | None:
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
            self._learn(answer, counted, state, attempts)
            return answer

    def _call(self, state: AccountState, attempts: ChartAttempts) -> Answer:
        """Call once, and log the call."""
        request = attempts.request
        attempts.calls += 1
        with logged_call(state.account.account_id, request, number=attempts.calls) as end:
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

    def _learn(self, answer: Answer, counted: Counted, state: AccountState, attempts: ChartAttempts) -> None:
        """Note what the answer says of the account, before another call may use it."""
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
                        accountId=state.account.account_id,
                    )
            case _:
                pass  # nothing about the account
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
                f"A Chart-IMG account is used up for today, says {source}",
                accountId=state.account.account_id,
            )
