"""One request of Chart-IMG, counted as every other, and no second one whatever it is answered."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.cli.doctor.results import failure, ok, warning
from daemon.composition import usable_environment
from worker_chart_export.charts.base import DEFAULT_HEIGHT, DEFAULT_WIDTH, ChartRequest
from worker_chart_export.charts.chart_img.answers import Meaning, classify_answer
from worker_chart_export.charts.chart_img.client import ChartApi
from worker_chart_export.charts.chart_img.quota import QuotaLedger
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import StepTimedOut, WorkerError
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.cli.doctor.results import CheckResult
    from worker_chart_export.charts.chart_img.accounts import Account

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
    Meaning.TRANSIENT: "try again later; CHARTS_API_MODE=local draws charts here meanwhile",
    Meaning.REFUSED: "compare CHART_IMG_BASE_URL with Chart-IMG's documentation",
}
UNREACHED = "let this machine reach CHART_IMG_BASE_URL"
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


def call_once(
    client: Any, accounts: Sequence[Account], base_url: str, *, seconds: float = CALL_SECONDS
) -> CallTrial:
    """Ask the first account that is not used up for one chart.

    Raises:
        SettingsError: The environment's proxy or certificates can't be used.
    """
    scope = CancelScope(seconds=seconds, clock=SystemClock())
    quota = QuotaLedger(client)
    with usable_environment():
        opened = ChartApi(base_url=base_url, connections=1)
    with closing(opened) as api:
        try:
            account = next((one for one in accounts if quota.count(one, scope).granted), None)
        except WorkerError as error:
            return CallTrial(account_id=None, meaning=None, words=_words(error))
        if account is None:
            words = f"used up for today: {', '.join(one.account_id for one in accounts)}"
            return CallTrial(account_id=None, meaning=Meaning.EXHAUSTED, words=words)
        return _asked(api, account, scope)


def _asked(api: ChartApi, account: Account, scope: CancelScope) -> CallTrial:
    try:
        response = api.post(account, _request(scope))
        answer = classify_answer(
            response.status,
            response.body,
            width=DEFAULT_WIDTH,
            height=DEFAULT_HEIGHT,
            max_bytes=MAX_PNG_BYTES,
            redact=account.without_key,
        )
    except WorkerError as error:
        return CallTrial(account_id=account.account_id, meaning=None, words=_words(error))
    words = f"{answer.status} {answer.message}".strip()
    return CallTrial(account_id=account.account_id, meaning=answer.meaning, words=words)


def _words(error: WorkerError) -> str:
    return "no answer in time" if isinstance(error, StepTimedOut) else str(error)


def _request(scope: CancelScope) -> ChartRequest:
    return ChartRequest(
        template_id="doctor",
        symbol="AAPL",
        timeframe="1d",
        payload=PAYLOAD,
        read_candles=bytes,  # Chart-IMG has its own
        scope=scope,
    )


def call_verdict(check: str, trial: CallTrial) -> CheckResult:
    """What the answer says of the accounts. Pure."""
    if trial.account_id is None:
        mend = MENDS[trial.meaning] if trial.meaning else "mend what is said of firestore above"
        return failure(check, f"no call was made: {trial.words}", mend)
    if trial.meaning is Meaning.CHART:
        return ok(check, f"account {trial.account_id} answered with a chart; one call was counted")
    mend = MENDS[trial.meaning] if trial.meaning else UNREACHED
    judge = warning if trial.meaning in PASSING else failure
    return judge(check, f"account {trial.account_id} was asked: {trial.words}", mend)
