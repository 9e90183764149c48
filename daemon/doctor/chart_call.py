"""One request of Chart-IMG, counted as every other, and no second one whatever it is answered."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.doctor.findings import failure, ok, warning
from worker_chart_export.budget import StepBudget
from worker_chart_export.charts.base import DEFAULT_HEIGHT, DEFAULT_WIDTH, ChartRequest
from worker_chart_export.charts.chart_img.accounts import account_states
from worker_chart_export.charts.chart_img.answers import Meaning, understand
from worker_chart_export.charts.chart_img.http_call import ChartApi, NoAnswer
from worker_chart_export.charts.chart_img.provider import ChartImgProvider
from worker_chart_export.charts.chart_img.quota import QuotaLedger
from worker_chart_export.clock import SystemClock
from worker_chart_export.errors import (
    BackendRefused,
    BackendUnavailable,
    ChartApiLimitExceeded,
    Interrupted,
    OhlcvUnavailable,
    RequestError,
    StepTimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.doctor.findings import Finding
    from worker_chart_export.charts.chart_img.accounts import Account
    from worker_chart_export.charts.chart_img.http_call import Response
    from worker_chart_export.errors import WorkerError

#: Less than a check may take. Charts take some seconds.
CALL_SECONDS = 20.0
MAX_PNG_BYTES = 8 * 1024 * 1024
#: Every plan allows it.
PAYLOAD = {
    "symbol": "NASDAQ:AAPL",
    "interval": "1D",
    "timezone": "Etc/UTC",
    "width": DEFAULT_WIDTH,
    "height": DEFAULT_HEIGHT,
}
MENDS = {
    Meaning.BAD_KEY: "replace its apiKey in CHART_IMG_ACCOUNTS_JSON",
    Meaning.EXHAUSTED: "wait for midnight UTC, or add an account",
    Meaning.TOO_FAST: "lower its ratePerSecond, or try again in a minute",
    Meaning.OVER_PLAN: "name its plan in CHART_IMG_ACCOUNTS_JSON",
    Meaning.TROUBLE: "try again later; CHARTS_API_MODE=local draws charts here meanwhile",
    Meaning.REFUSED: "compare CHART_IMG_BASE_URL with Chart-IMG's documentation",
}
#: The daemon goes on to another account, or waits a second.
PASSING = frozenset({Meaning.EXHAUSTED, Meaning.TOO_FAST, Meaning.OVER_PLAN})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTrial:
    """What became of the request.

    Attributes:
        account_id: The account that was asked; None = none was.
        meaning: What its answer, or the count of its calls, means; None without either.
        words: What was answered, or why nothing was asked.
    """

    account_id: str | None
    meaning: Meaning | None
    words: str


class _OneCall(ChartApi):
    """Stops whoever made a call right after it, so that the provider can't go on to a second one."""

    asked: Account | None = None
    response: Response | None = None
    no_answer: str = ""

    def post(self, account: Account, request: ChartRequest) -> Response:
        """Call once."""
        self.asked = account
        try:
            self.response = super().post(account, request)
        except NoAnswer as error:
            self.no_answer = str(error)
            raise
        finally:
            request.budget.stop(Interrupted("one call was made"))
        return self.response

    def trial(self, error: WorkerError | None) -> CallTrial:
        """What is known after the provider ended with this error, or with a chart."""
        if self.asked is None:
            used_up = Meaning.EXHAUSTED if isinstance(error, ChartApiLimitExceeded) else None
            return CallTrial(account_id=None, meaning=used_up, words=str(error))
        account_id = self.asked.account_id
        if isinstance(error, StepTimedOut):
            words = f"no answer within {CALL_SECONDS:g} s"
            return CallTrial(account_id=account_id, meaning=None, words=words)
        if self.response is None:
            return CallTrial(account_id=account_id, meaning=None, words=self.no_answer or str(error))
        answer = understand(
            self.response.status,
            self.response.body,
            width=DEFAULT_WIDTH,
            height=DEFAULT_HEIGHT,
            max_bytes=MAX_PNG_BYTES,
            blot=self.asked.without_key,
        )
        said = f"{answer.status} {answer.words}".strip()
        return CallTrial(account_id=account_id, meaning=answer.meaning, words=said)


def call_once(client: Any, accounts: Sequence[Account], base_url: str) -> CallTrial:
    """Ask the first account that may be asked for one chart."""
    clock = SystemClock()
    budget = StepBudget(seconds=CALL_SECONDS, clock=clock)
    with closing(_OneCall(base_url=base_url, connections=1)) as api:
        provider = ChartImgProvider(
            api=api,
            accounts=account_states(accounts, clock),
            quota=QuotaLedger(client),
            clock=clock,
            max_png_bytes=MAX_PNG_BYTES,
        )
        try:
            provider.chart(_request(budget))
        except (RequestError, Interrupted, BackendUnavailable, BackendRefused) as error:
            return api.trial(error)
        return api.trial(None)


def _request(budget: StepBudget) -> ChartRequest:
    return ChartRequest(
        template_id="doctor",
        symbol="AAPL",
        timeframe="1d",
        payload=PAYLOAD,
        read_candles=_no_candles,
        budget=budget,
    )


def _no_candles() -> bytes:
    raise OhlcvUnavailable("Chart-IMG has its own candles.")


def call_verdict(check: str, trial: CallTrial) -> Finding:
    """What the answer says of the accounts. Pure."""
    if trial.account_id is None:
        mend = MENDS[trial.meaning] if trial.meaning else "mend what is said of firestore above"
        return failure(check, f"no call was made: {trial.words}", mend)
    if trial.meaning is Meaning.CHART:
        return ok(check, f"account {trial.account_id} answered with a chart; one call was counted")
    mend = MENDS[trial.meaning] if trial.meaning else "let this machine reach CHART_IMG_BASE_URL"
    judge = warning if trial.meaning in PASSING else failure
    return judge(check, f"account {trial.account_id} was asked: {trial.words}", mend)
