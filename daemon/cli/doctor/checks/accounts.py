"""Where charts come from: the Chart-IMG accounts by their shape, or what is used in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.cli.doctor.checks.chart_call import call_once, call_verdict
from daemon.cli.doctor.checks.firestore import open_firestore
from daemon.cli.doctor.results import not_checkable, ok, warning
from daemon.composition import chart_img_account
from daemon.settings import ChartsApiMode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daemon.cli.doctor.results import CheckResult
    from daemon.settings import ChartSettings, FirestoreSettings
    from daemon.settings.accounts import AccountSettings
    from worker_chart_export.charts.chart_img.accounts import Account

CHECK = "accounts"
FIXTURES = "fixtures"
CALL = "accounts.call"


def configured_accounts(settings: ChartSettings | None) -> list[Account]:
    """The accounts, in order of priority; none when they are not needed or wrong."""
    if settings is None or settings.chart_img_accounts_json is None:
        return []
    return [chart_img_account(given) for given in settings.accounts]


def check_accounts(settings: ChartSettings) -> list[CheckResult]:
    """What the mode needs: accounts, fixtures, both or nothing. Asks nobody."""
    mode = settings.charts_api_mode
    found = []
    if mode in (ChartsApiMode.REAL, ChartsApiMode.RECORD):
        found.append(ok(CHECK, account_words(settings.accounts)))
    else:
        found.append(ok(CHECK, f"none needed: CHARTS_API_MODE={mode} asks nothing of Chart-IMG"))
    if mode is ChartsApiMode.MOCK and settings.charts_fixtures_dir is not None:
        found.append(_fixtures(settings.charts_fixtures_dir))
    return found


def account_words(accounts: Sequence[AccountSettings]) -> str:
    """Number, order, limits and plans; no keys. Pure."""
    told = ", ".join(f"{account.id} ({_limits(account)})" for account in accounts)
    calls = sum(account.daily_limit for account in accounts)
    plural = "" if len(accounts) == 1 else "s"
    return f"{len(accounts)} account{plural}, {calls} calls a day: {told}"


def _limits(account: AccountSettings) -> str:
    return f"{account.daily_limit} a day, plan {account.plan or 'not told'}"


def _fixtures(folder: Path) -> CheckResult:
    count = sum(1 for _ in folder.glob("*.png"))
    if count:
        return ok(FIXTURES, f"{count} charts in {folder}")
    return warning(FIXTURES, f"no chart in {folder}", "CHARTS_API_MODE=record saves charts there")


def check_call(charts: ChartSettings, documents: FirestoreSettings) -> list[CheckResult]:
    """Spend one request."""
    accounts = configured_accounts(charts)
    if not accounts:
        return [not_checkable(CALL, f"CHARTS_API_MODE={charts.charts_api_mode} makes no calls")]
    with open_firestore(documents) as client:
        return [call_verdict(CALL, call_once(client, accounts, charts.chart_img_base_url))]
