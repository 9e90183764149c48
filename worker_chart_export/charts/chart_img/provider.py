"""`real` mode: charts from Chart-IMG, account by account, each call counted before it is made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker_chart_export.charts.base import ChartImage
from worker_chart_export.charts.chart_img.accounts import USED_UP, Demand, why_not_on_plan
from worker_chart_export.charts.chart_img.answers import Answer, Meaning, understand
from worker_chart_export.charts.chart_img.http_call import NoAnswer
from worker_chart_export.charts.chart_img.usage import window_of
from worker_chart_export.errors import ChartApiFailed, ChartApiLimitExceeded, ChartTooLarge
from worker_chart_export.logs import Event, log
from worker_chart_export.retry import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.charts.chart_img.accounts import AccountState
    from worker_chart_export.charts.chart_img.http_call import ChartApi
    from worker_chart_export.charts.chart_img.quota import QuotaLedger
    from worker_chart_export.clock import Clock

MAX_ATTEMPTS = 6
LEAST_DELAY_SECONDS, MOST_DELAY_SECONDS = 0.5, 8.0
LEAST_TOO_FAST_SECONDS, MOST_TOO_FAST_SECONDS = 0.8, 1.5


class ChartImgProvider:
    """Asks Chart-IMG. Shared by all threads.

    Args:
        api: Makes the calls.
        accounts: The accounts in order of priority.
        quota: Counts the calls.
        clock: Its wall clock says which day it is, until an account's usage is read.
        max_png_bytes: Pictures above this size are refused.
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

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def chart(self, request: ChartRequest) -> ChartImage:
        """Ask until there is a chart: six attempts, as many accounts as there are, the step's time at most.

        Raises:
            ChartApiFailed: There is none to be had.
            ChartTooLarge: It is larger than its readers accept.
            ChartApiLimitExceeded: Every account is used up, disabled, or on too small a plan.
            BackendUnavailable: Firestore is away, so that no call can be counted.
            BackendRefused: Firestore refuses.
            WorkerError: The step was stopped, or its time is over.
        """
        order = _Order(request)
        while True:
            state = self._usable(order)
            called = self._call(state, order)
            if called is None:
                continue
            answer, png = called
            if answer.meaning is Meaning.CHART:
                meta = {"accountId": state.account.account_id}
                return ChartImage(png=png, provider="chart-img", meta=meta)
            order.go_on_after(answer, state)

    def _usable(self, order: _Order) -> AccountState:
        """The first account that may give this chart."""
        window = window_of(self._clock.now())
        reasons: dict[str, str] = {}
        for state in self._accounts:
            why = state.why_unusable(window) or order.why_not(state)
            if why is None:
                return state
            reasons[state.account.account_id] = why
        raise ChartApiLimitExceeded(
            "No Chart-IMG account is left: " + "; ".join(f"{name}: {why}" for name, why in reasons.items()),
            accounts=reasons,
        )

    def _call(self, state: AccountState, order: _Order) -> tuple[Answer, bytes] | None:
        """Call once; None when the account turned out to be of no use before anything was paid for."""
        budget = order.request.budget
        with state.turn(budget):
            if state.why_unusable(window_of(self._clock.now())) is not None:
                return None
            state.rate.wait(budget)
            window = self._count(state, order)
            if window is None:
                return None
            budget.check()
            answer, png = self._ask(state, order.request)
            self._learn(state, answer, window)
            order.counted = (state, window) if answer.meaning is Meaning.TOO_FAST else None
            return answer, png

    def _count(self, state: AccountState, order: _Order) -> datetime | None:
        """The window that the call counts in; None when the account is used up."""
        if order.counted is not None and order.counted[0] is state:
            return order.counted[1]
        counted = self._quota.count(state.account, order.request.budget)
        if counted.granted:
            return counted.window
        order.pass_over(state, USED_UP)  # by the server's day, which by our clock may be yesterday
        _exhaust(state, counted.window, "its usage document")
        return None

    def _ask(self, state: AccountState, request: ChartRequest) -> tuple[Answer, bytes]:
        started = time.monotonic()
        status, outcome = 0, "stopped"
        try:
            response = self._api.post(state.account, request)
            status, outcome = response.status, "too_large"
            answer = understand(
                status,
                response.body,
                width=request.width,
                height=request.height,
                max_bytes=self._max_png_bytes,
                retry_after=response.retry_after,
                blot=state.account.without_key,
            )
            outcome = answer.meaning.value
        except NoAnswer as error:
            outcome = "no_answer"
            return Answer(meaning=Meaning.TROUBLE, status=0, words=str(error)), b""
        except ChartTooLarge:
            state.answered()
            raise
        finally:
            _log_call(state, request, status, outcome, time.monotonic() - started)
        return answer, response.body

    def _learn(self, state: AccountState, answer: Answer, window: datetime) -> None:
        """What the answer says of the account, before anybody else may use it."""
        if answer.meaning is Meaning.EXHAUSTED:
            _exhaust(state, window, "its answer")
        elif answer.meaning is Meaning.BAD_KEY:
            why = f"its key is refused ({answer.status} {answer.words})"
            if state.disable(why):
                log.error(
                    Event.CHART_API_KEY_REFUSED,
                    f"A Chart-IMG account is not used any more: {why}",
                    accountId=state.account.account_id,
                )
        if answer.proves_key:
            state.answered()


class _Order:
    """One chart on its way through the accounts."""

    def __init__(self, request: ChartRequest) -> None:
        self.request = request
        #: The account, and the window, whose last call was counted but answered "too fast".
        self.counted: tuple[AccountState, datetime] | None = None
        self._failed = 0
        self._passed_over: dict[AccountState, str] = {}
        self._demand = Demand.of(request.payload)

    def why_not(self, state: AccountState) -> str | None:
        """Why this chart can't come from this account, as far as is known."""
        return self._passed_over.get(state) or why_not_on_plan(state.account, self._demand)

    def pass_over(self, state: AccountState, why: str) -> None:
        """This chart is not tried on this account any more."""
        self._passed_over[state] = why

    def go_on_after(self, answer: Answer, state: AccountState) -> None:
        """Wait, or go to the next account, or give up.

        Raises:
            ChartApiFailed: Asking again would not help, or was tried often enough.
            WorkerError: The step was stopped, or its time is over.
        """
        match answer.meaning:
            case Meaning.TOO_FAST:
                self.request.budget.sleep(_too_fast_seconds(answer))
            case Meaning.OVER_PLAN:
                self.pass_over(state, answer.words)
            case Meaning.TROUBLE:
                self._failed += 1
                if self._failed >= MAX_ATTEMPTS:
                    raise _failure(answer, state)
                self.request.budget.sleep(_delay_seconds(self._failed, answer))
            case Meaning.REFUSED:
                raise _failure(answer, state)
            case Meaning.EXHAUSTED:
                self.pass_over(state, USED_UP)
            case Meaning.BAD_KEY | Meaning.CHART:
                pass  # the account itself was noted; the next one, if there is one, is asked at once


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
    bound = min(MOST_DELAY_SECONDS, 2.0 * LEAST_DELAY_SECONDS * 2 ** (failed - 1))
    drawn = full_jitter_seconds(least=LEAST_DELAY_SECONDS, most=bound)
    return max(drawn, answer.retry_after_seconds or 0.0)


def _too_fast_seconds(answer: Answer) -> float:
    asked = answer.retry_after_seconds or 0.0
    return max(asked, full_jitter_seconds(least=LEAST_TOO_FAST_SECONDS, most=MOST_TOO_FAST_SECONDS))


def _log_call(state: AccountState, request: ChartRequest, status: int, outcome: str, seconds: float) -> None:
    log.info(
        Event.CHART_API_CALL_FINISHED,
        f"Chart-IMG answered {status or 'nothing'} for {request.template_id}",
        chartTemplateId=request.template_id,
        accountId=state.account.account_id,
        httpStatus=status,
        outcome=outcome,
        durationMs=round(seconds * 1000),
    )


def _exhaust(state: AccountState, window: datetime, source: str) -> None:
    if state.exhaust(window):
        log.warning(
            Event.CHART_API_LIMIT_EXCEEDED,
            f"A Chart-IMG account is used up for today, says {source}",
            accountId=state.account.account_id,
        )
