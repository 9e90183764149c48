"""Check where charts come from: the settings of the Chart-IMG accounts, and optionally one request."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.cli.doctor.checks.firestore import open_firestore
from daemon.cli.doctor.results import failure, not_checkable, ok, warning
from daemon.clients import usable_environment
from daemon.reports.wording import plural
from daemon.settings import ChartsApiMode
from worker_chart_export.charts.base import DEFAULT_HEIGHT, DEFAULT_WIDTH, ChartRequest
from worker_chart_export.charts.chart_img.answers import Meaning, classify_answer
from worker_chart_export.charts.chart_img.client import ChartApi
from worker_chart_export.charts.chart_img.quota import QuotaLedger
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.concurrency.single_flight import LoadOnce
from worker_chart_export.descriptions import describe
from worker_chart_export.errors import StepTimedOut, WorkerError
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.cli.doctor.results import CheckResult
    from daemon.settings import ChartSettings, FirestoreSettings
    from worker_chart_export.charts.chart_img.accounts import Account

CHECK = "accounts"
FIXTURES = "fixtures"
CALL = "accounts.call"
#: Less than the time limit of a check. A chart takes some seconds.
CALL_SECONDS = 20.0
MAX_PNG_BYTES = 8 * 1024 * 1024
#: A request that every plan allows.
PAYLOAD = {
    "symbol": "NASDAQ:AAPL",
    "interval": "1D",
    "timezone": "Etc/UTC",
    "width": DEFAULT_WIDTH,
    "height": DEFAULT_HEIGHT,
}
#: `{variable}`: the variable that gave the accounts.
FIXES = {
    Meaning.BAD_KEY: "replace its apiKey in {variable}",
    Meaning.EXHAUSTED: "wait for midnight UTC, or add an account",
    Meaning.TOO_FAST: "lower its ratePerSecond, or try again in a minute",
    Meaning.OVER_PLAN: "name its plan in {variable}",
    Meaning.TRANSIENT: "try again later; until then CHARTS_API_MODE=local draws charts on this machine",
    Meaning.REFUSED: "compare CHART_IMG_BASE_URL with Chart-IMG's documentation",
}
UNREACHABLE_FIX = "let this machine reach CHART_IMG_BASE_URL"
#: After these answers, the daemon uses another account or waits a second.
PASSING = frozenset({Meaning.EXHAUSTED, Meaning.TOO_FAST, Meaning.OVER_PLAN})


def configured_accounts(settings: ChartSettings | None) -> list[Account]:
    """Return the accounts in order of priority; none if they are wrong or not needed."""
    if settings is None or settings.chart_img_accounts_json is None:
        return []
    return settings.accounts


def check_accounts(settings: ChartSettings) -> list[CheckResult]:
    """Check what the mode needs: accounts, fixtures, both or nothing. No request is sent."""
    mode = settings.charts_api_mode
    results = []
    if mode in (ChartsApiMode.REAL, ChartsApiMode.RECORD):
        results.append(ok(CHECK, describe_accounts(settings.accounts)))
    else:
        results.append(ok(CHECK, f"none needed: CHARTS_API_MODE={mode} sends nothing to Chart-IMG"))
    folder = settings.charts_fixtures_dir
    if mode is ChartsApiMode.MOCK and folder is not None:
        if count := sum(1 for _ in folder.glob("*.png")):
            results.append(ok(FIXTURES, f"{count} charts in {folder}"))
        else:
            fix = "CHARTS_API_MODE=record saves charts there"
            results.append(warning(FIXTURES, f"no chart in {folder}", fix))
    return results


def describe_accounts(accounts: Sequence[Account]) -> str:
    """Return number, order, limits and plans of the accounts, without keys. Pure."""
    calls = sum(account.daily_limit for account in accounts)
    each = ", ".join(
        f"{account.id} ({account.daily_limit} a day, plan {account.plan or 'not given'})"
        for account in accounts
    )
    return f"{plural(len(accounts), 'account')}, {calls} calls a day: {each}"


def check_call(documents: FirestoreSettings, charts: ChartSettings) -> list[CheckResult]:
    """Send one request to Chart-IMG, which counts like any other."""
    accounts = configured_accounts(charts)
    if not accounts:
        return [not_checkable(CALL, f"CHARTS_API_MODE={charts.charts_api_mode} sends no requests")]
    with open_firestore(documents) as client:
        trial = call_once(client, accounts, charts.chart_img_base_url)
    return [call_verdict(CALL, trial, variable=charts.accounts_variable)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTrial:
    """The result of the request.

    Attributes:
        account_id: The account that was used; None if no request was sent.
        meaning: The meaning of the answer or of the account's quota; None without either.
        text: The answer, or why no request was sent.
    """

    account_id: str | None
    meaning: Meaning | None
    text: str


def call_once(
    client: Any, accounts: Sequence[Account], base_url: str, *, seconds: float = CALL_SECONDS
) -> CallTrial:
    """Request one chart with the first account that has quota left. A failed request is not repeated.

    Raises:
        SettingsError: The environment's proxy or certificates can't be used.
    """
    scope = CancelScope(seconds=seconds, clock=SystemClock())
    quota = QuotaLedger(client)
    with usable_environment():
        opened = ChartApi(base_url=base_url, connections=1, max_png_bytes=MAX_PNG_BYTES)
    account = None
    with closing(opened) as api:
        try:
            for account in accounts:
                counted = quota.count(account, scope)
                if counted.granted:
                    trial = _request_chart(api, account, scope)
                    if trial.meaning is Meaning.EXHAUSTED:
                        quota.use_up(account, counted, scope)
                    return trial
            text = f"used up for today: {', '.join(one.id for one in accounts)}"
            return CallTrial(account_id=None, meaning=Meaning.EXHAUSTED, text=text)
        except WorkerError as error:
            text = describe(error.code) if isinstance(error, StepTimedOut) else str(error)
            return CallTrial(account_id=account.id if account else None, meaning=None, text=text)


def _request_chart(api: ChartApi, account: Account, scope: CancelScope) -> CallTrial:
    request = ChartRequest(
        template_id="doctor",
        symbol="AAPL",
        timeframe="1d",
        payload=PAYLOAD,
        candles=LoadOnce(bytes),  # not used: Chart-IMG has its own candles
        scope=scope,
        call_scope=scope,
    )
    response = api.post(account, request)
    answer = classify_answer(
        response.status,
        response.body,
        width=DEFAULT_WIDTH,
        height=DEFAULT_HEIGHT,
        max_bytes=MAX_PNG_BYTES,
        redact=account.without_key,
    )
    text = f"{answer.status} {answer.message}".strip()
    return CallTrial(account_id=account.id, meaning=answer.meaning, text=text)


def call_verdict(check: str, trial: CallTrial, *, variable: str) -> CheckResult:
    """Judge the result of the request. `variable` gave the accounts. Pure."""
    known_fix = FIXES[trial.meaning].format(variable=variable) if trial.meaning in FIXES else None
    if trial.account_id is None:
        fix = known_fix or "fix the firestore checks above first"
        return failure(check, f"no request was sent: {trial.text}", fix)
    if trial.meaning is Meaning.CHART:
        return ok(check, f"account {trial.account_id} answered with a chart; one call was counted")
    fix = known_fix or UNREACHABLE_FIX
    judge = warning if trial.meaning in PASSING else failure
    return judge(check, f"request with account {trial.account_id}: {trial.text}", fix)
