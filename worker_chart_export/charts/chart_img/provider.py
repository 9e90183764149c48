"""`real` mode: charts from Chart-IMG, account by account, each call counted before it is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from worker_chart_export.charts.base import ChartImage
from worker_chart_export.charts.chart_img.answers import Answer, Meaning, understand
from worker_chart_export.charts.chart_img.attempt import TOO_BUSY, Order
from worker_chart_export.charts.chart_img.call_log import logged_call
from worker_chart_export.charts.chart_img.client import OK, NoAnswer
from worker_chart_export.errors import ChartTooLarge, StepTimedOut
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.charts.chart_img.accounts import AccountState
    from worker_chart_export.charts.chart_img.call_log import CallEnd
    from worker_chart_export.charts.chart_img.client import ChartApi
    from worker_chart_export.charts.chart_img.quota import Counted, QuotaLedger
    from worker_chart_export.timing import Clock

#: A usage document that says "used up" is read again after so long: somebody may have raised its limit.
LOOK_AGAIN_SECONDS = 60.0
#: How long a chart waits for another one's first answer of an account before it tries the next account.
FIRST_ANSWER_PATIENCE_SECONDS = 10.0


class ChartImgProvider:
    """Asks Chart-IMG. Shared by all threads.

    Args:
        api: Makes the calls.
        accounts: The accounts in order of priority.
        quota: Counts the calls; tells when the day ends, by the server's time.
        clock: Its monotonic clock is used; the quota's has to be the same.
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
        for state in accounts:
            metrics.know_account(state.account.account_id, daily_limit=state.account.daily_limit)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def chart(self, request: ChartRequest) -> ChartImage:
        """Ask until there is a chart: six attempts, as many accounts as there are, the step's time at most.

        Raises:
            ChartApiFailed: There is none to be had.
            ChartTooLarge: It is larger than its readers accept.
            ChartApiLimitExceeded: Every account is used up, disabled, or on too small a plan.
            StepTimedOut: The step's time is over, or too short; says what had gone wrong before.
            BackendUnavailable: Firestore is away, so that no call can be counted.
            BackendRefused: Firestore refuses.
            WorkerError: The step was stopped.
        """
        order = Order(request)
        try:
            return self._fulfil(order)
        except StepTimedOut as error:
            raise order.timed_out(error) from error

    def _fulfil(self, order: Order) -> ChartImage:
        while True:
            state = self._next_account(order)
            called = self._call(state, order)
            if called is None:
                continue
            answer, png = called
            if answer.meaning is Meaning.CHART:
                meta = {"accountId": state.account.account_id}
                return ChartImage(png=png, provider="chart-img", meta=meta)
            order.go_on_after(answer, state)

    def _next_account(self, order: Order) -> AccountState:
        """The first account that may give this chart; one that was silent for too long comes last."""
        why_not = {state: self._why_not(state, order) for state in self._accounts}
        usable = [state for state, why in why_not.items() if why is None]
        if not usable:
            raise order.no_account_left(
                {state.account.account_id: why for state, why in why_not.items() if why is not None}
            )
        return next((state for state in usable if state not in order.silent), usable[0])

    def _why_not(self, state: AccountState, order: Order) -> str | None:
        return state.why_unusable(self._clock.monotonic()) or order.why_not(state)

    def _call(self, state: AccountState, order: Order) -> tuple[Answer, bytes] | None:
        """Call once; None when the account turned out to be of no use before anything was paid for."""
        scope = order.request.scope
        patience = math.inf if state in order.silent else FIRST_ANSWER_PATIENCE_SECONDS
        with state.turn(scope, patience_seconds=patience) as may_call:
            if not may_call:
                order.silent.add(state)
                return None
            counted = self._count(state, order) if self._is_let_through(state, order) else None
            if counted is None:
                return None
            scope.check()
            answer, png = self._ask(state, order)
            self._learn(state, order, answer, counted)
            return answer, png

    def _is_let_through(self, state: AccountState, order: Order) -> bool:
        """Whether its turn comes in time, and it is of use before and after."""
        if self._why_not(state, order) is not None:
            return False
        if not state.rate.wait(order.request.scope):
            order.pass_over(state, TOO_BUSY, for_time=True)
            return False
        return self._why_not(state, order) is None

    def _count(self, state: AccountState, order: Order) -> Counted | None:
        """The count of the call; None when the account is used up."""
        kept = order.counted.pop(state, None)
        if kept is not None and self._clock.monotonic() < kept.day_ends:
            return kept
        counted = self._quota.count(state.account, order.request.scope)
        if counted.granted:
            return counted
        self._exhaust(state, counted, "its usage document", for_seconds=LOOK_AGAIN_SECONDS)
        return None

    def _ask(self, state: AccountState, order: Order) -> tuple[Answer, bytes]:
        order.calls += 1
        with logged_call(state.account.account_id, order.request, number=order.calls) as end:
            try:
                return self._post(state, order.request, end)
            except NoAnswer as error:
                end.status, end.outcome, end.words = error.status, "no_answer", str(error)
                return Answer.missing(error.status, str(error), was_sent=error.sent), b""
            except ChartTooLarge as error:
                end.status, end.outcome, end.words = OK, "too_large", error.message
                state.answered()
                raise

    def _post(self, state: AccountState, request: ChartRequest, end: CallEnd) -> tuple[Answer, bytes]:
        response = self._api.post(state.account, request)
        answer = understand(
            response.status,
            response.body,
            width=request.width,
            height=request.height,
            max_bytes=self._max_png_bytes,
            retry_after_seconds=response.retry_after_seconds,
            blot=state.account.without_key,
        )
        end.status, end.outcome, end.words = answer.status, answer.meaning.value, answer.words
        return answer, response.body

    def _learn(self, state: AccountState, order: Order, answer: Answer, counted: Counted) -> None:
        """What the answer says of the account, before anybody else may use it."""
        match answer.meaning:
            case Meaning.EXHAUSTED:
                self._exhaust(state, counted, "its answer")
            case Meaning.OVER_PLAN:
                state.refuse(order.demand, answer.words)
            case Meaning.BAD_KEY:
                _disable(state, f"its key is refused ({answer.status} {answer.words})")
            case _:
                pass  # nothing of the account
        if answer.keeps_count:
            order.counted[state] = counted
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


def _disable(state: AccountState, why: str) -> None:
    if state.disable(why):
        log.error(
            Event.CHART_API_KEY_REFUSED,
            f"A Chart-IMG account is not used any more: {why}",
            accountId=state.account.account_id,
        )
