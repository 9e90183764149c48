"""`real` mode: charts from Chart-IMG, account by account. Each call is counted before it is made.

`attempts` decides what comes after each answer.
"""

from __future__ import annotations

import math
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from worker_chart_export.charts.base import ChartImage
from worker_chart_export.charts.chart_img.account_state import USED_UP, why_none_left
from worker_chart_export.charts.chart_img.accounts import Demand
from worker_chart_export.charts.chart_img.answers import Answer, Meaning, classify_answer
from worker_chart_export.charts.chart_img.attempts import ChartAttempts
from worker_chart_export.charts.chart_img.client import NoAnswer, logged_call
from worker_chart_export.errors import (
    AccountsExhausted,
    ChartApiLimitExceeded,
    ChartTooLarge,
    OutOfReach,
    RequestError,
    StepTimedOut,
)
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.charts.chart_img.account_state import AccountState
    from worker_chart_export.charts.chart_img.accounts import Account
    from worker_chart_export.charts.chart_img.client import ChartApi
    from worker_chart_export.charts.chart_img.quota import Counted, QuotaLedger
    from worker_chart_export.timing import Clock

#: The usage document of a used-up account is read again after this time: a person may have raised the limit.
READ_AGAIN_SECONDS = 60.0
#: While charts wait, it is read so much earlier, because probes come at intervals.
PROBE_EARLY_SECONDS = 15.0
#: A chart waits this long for an account's first answer to another chart, then tries the next account.
FIRST_ANSWER_MAX_WAIT_SECONDS = 10.0
TOO_BUSY = "its rate limit does not allow this chart within the step's time"


class ChartImgProvider:
    """Get charts from Chart-IMG. Shared by all threads.

    Args:
        api: Makes the calls.
        accounts: The accounts in order of priority.
        quota: Counts the calls. Its counts carry the end of the server's day.
        clock: Its monotonic clock is used. It has to be the clock of `quota`.
        max_png_bytes: Larger pictures are refused.
        waits: Charts that no account can make now wait for one; else they fail.
        read_accounts: Reads the accounts again, or raises ValueError. While a key is refused, it is called at
            most once a minute, because a person may have put in a new one. None: they can't change.
    """

    def __init__(
        self,
        *,
        api: ChartApi,
        accounts: Sequence[AccountState],
        quota: QuotaLedger,
        clock: Clock,
        max_png_bytes: int,
        waits: bool = False,
        read_accounts: Callable[[], Sequence[Account]] | None = None,
    ) -> None:
        self._api = api
        self._accounts = accounts
        self._quota = quota
        self._clock = clock
        self._max_png_bytes = max_png_bytes
        self._waits = waits
        self._read_accounts = read_accounts
        self._keys_read_at = -math.inf
        for state in accounts:
            metrics.know_account(
                state.account.id,
                daily_limit=state.account.daily_limit,
                is_usable=partial(self._is_usable, state),
            )

    @property
    def accounts(self) -> Sequence[AccountState]:
        """The accounts in order of priority."""
        return self._accounts

    def why_none_left(self) -> str | None:
        """Return why no account is left, as far as is known, or None if one may make charts."""
        return why_none_left(self._accounts, self._clock.monotonic())

    def _is_usable(self, state: AccountState) -> bool:
        return state.why_lost(self._clock.monotonic()) is None

    def probe(self) -> None:
        """Return if an account may make charts. Read the usage documents of the used-up ones again.

        Raises:
            AccountsExhausted: There is none.
            BackendUnavailable: Firestore is unavailable.
            BackendRefused: Firestore refuses.
        """
        self._look_for_new_keys()
        for state in self._accounts:
            now = self._clock.monotonic()
            if state.why_unusable(now + PROBE_EARLY_SECONDS) is None and state.why_lost(now) == USED_UP:
                counted = self._quota.has_calls_left(state.account)
                if not counted.granted:
                    self._exhaust(state, counted, "its usage document")
                    continue
                state.has_calls()
            if state.why_unusable(now) is None:
                return
        raise AccountsExhausted(self.why_none_left() or "No Chart-IMG account is left")

    def _look_for_new_keys(self) -> None:
        """Replace refused keys by those that a person has put in meanwhile."""
        now = self._clock.monotonic()
        refused = {state.account.id: state for state in self._accounts if state.is_refused}
        if self._read_accounts is None or not refused or now - self._keys_read_at < READ_AGAIN_SECONDS:
            return
        self._keys_read_at = now
        try:
            accounts = self._read_accounts()
        except ValueError as error:
            log.warning(Event.CHART_API_KEY_REFUSED, f"The accounts can't be read again: {error}")
            return
        for account in accounts:
            if account.id in refused and refused[account.id].use_key_of(account):
                log.info(Event.CHART_API_KEY_REPLACED, "Using the account's new key", accountId=account.id)

    def known_failure(self, request: ChartRequest) -> RequestError | None:
        """Return why no account can make the chart, or None if one may.

        Raises:
            AccountsExhausted: None can make it now, and it waits.
        """
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
            ChartApiLimitExceeded: Each account is used up, refused, or on too small a plan.
            AccountsExhausted: The same, and the chart waits for an account.
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
            AccountsExhausted: There is none now, and the chart waits.
        """
        self._look_for_new_keys()
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
            error = attempts.no_account_left(reasons)
            if self._waits and isinstance(error, ChartApiLimitExceeded) and self._is_on_a_plan(attempts):
                raise AccountsExhausted(error.message, is_for_all=self.why_none_left() is not None)
            raise error
        return silent

    def _is_on_a_plan(self, attempts: ChartAttempts) -> bool:
        """Return True if an account's plan may allow the chart, so that it is worth a wait."""
        now = self._clock.monotonic()
        return any(state.why_too_small(attempts.demand, now) is None for state in self._accounts)

    def _try_account(self, state: AccountState, attempts: ChartAttempts) -> Answer | None:
        """Count a call and make it. Return None when the account is of no use for this chart after all."""
        scope = attempts.request.scope
        # No chart waits for a key that was refused and is tried again, if another account may make it.
        max_wait = 0.0 if state.is_refused else FIRST_ANSWER_MAX_WAIT_SECONDS
        if state in attempts.silent:
            max_wait = math.inf
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
                self._exhaust(state, counted, "its usage document")
                return None
            state.has_calls()
            scope.check()
            account = state.account
            answer = self._call(account, state, attempts)
            self._update_account(answer, counted, state, attempts, account=account)
            return answer

    def _call(self, account: Account, state: AccountState, attempts: ChartAttempts) -> Answer:
        """Call once, and log the call."""
        request = attempts.request
        attempts.calls += 1
        with logged_call(account.id, request, number=attempts.calls) as end:
            try:
                response = self._api.post(account, request)
                answer = classify_answer(
                    response.status,
                    response.body,
                    width=request.width,
                    height=request.height,
                    max_bytes=self._max_png_bytes,
                    retry_after_seconds=response.retry_after_seconds,
                    redact=account.without_key,
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
        self,
        answer: Answer,
        counted: Counted,
        state: AccountState,
        attempts: ChartAttempts,
        *,
        account: Account,
    ) -> None:
        """Update the account from the answer, before another call may use it."""
        match answer.meaning:
            case Meaning.EXHAUSTED:
                self._quota.use_up(state.account, counted, attempts.request.call_scope)
                self._exhaust(state, counted, "its answer")
            case Meaning.OVER_PLAN:
                state.refuse_demand(attempts.demand, answer.message, until=counted.day_ends)
            case Meaning.BAD_KEY:
                if account is state.account:  # else the key was replaced during the call
                    self._refuse_key(state, answer)
            case _:
                pass  # the answer does not depend on the account
        if answer.keeps_count:
            attempts.counted[state] = counted
        if answer.proves_key:
            state.answered()

    def _refuse_key(self, state: AccountState, answer: Answer) -> None:
        reason, now = f"its key is refused ({answer.status} {answer.message})", self._clock.monotonic()
        seconds = state.refuse_key(reason, now)
        if seconds is not None:
            self._keys_read_at = now
            log.error(
                Event.CHART_API_KEY_REFUSED,
                f"A Chart-IMG account is not used for {seconds:.0f} s: {reason}",
                accountId=state.account.id,
                delaySeconds=seconds,
            )

    def _exhaust(self, state: AccountState, counted: Counted, source: str) -> None:
        now = self._clock.monotonic()
        until = min(now + READ_AGAIN_SECONDS, counted.day_ends)
        if state.exhaust(now=now, until=until, day_ends=counted.day_ends):
            log.warning(
                Event.CHART_API_LIMIT_EXCEEDED,
                f"A Chart-IMG account is used up for today, according to {source}",
                accountId=state.account.id,
            )
