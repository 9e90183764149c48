"""List the Chart-IMG accounts with their quota."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.reports.wording import plural
from worker_chart_export.charts.chart_img.usage import AccountUsage, read_usages
from worker_chart_export.fleet.heartbeat import live_workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from worker_chart_export.charts.chart_img.accounts import Account

COLUMNS = {
    "ACCOUNT": lambda row: row.usage.account_id,
    "USED": lambda row: text_of(row.usage.used),
    "LIMIT": lambda row: text_of(row.usage.limit),
    "LEFT": lambda row: text_of(row.usage.left),
    "LIMIT FROM": lambda row: row.limit_source or "-",
    "WINDOW ENDS (UTC)": lambda row: window_end(row.usage),
    "RATE": lambda row: row.rate,
    "REFUSED": lambda row: row.refused or "-",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """An account in the list.

    Attributes:
        usage: How much of its quota is used.
        refusals: Owner -> reason, of the daemons that found its key refused when they used it last.
    """

    usage: AccountUsage
    refusals: Mapping[str, str]

    @property
    def refused(self) -> str | None:
        """How many daemons have found the key refused, and why, for a person."""
        if not self.refusals:
            return None
        return f"by {plural(len(self.refusals), 'daemon')}: {next(iter(self.refusals.values()))}"

    @property
    def limit_source(self) -> str | None:
        """Where the limit comes from: `document`, `settings`, or None when it is not known."""
        if self.usage.is_own_limit:
            return "document"
        return None if self.usage.limit is None else "settings"

    @property
    def rate(self) -> str:
        """How fast one daemon calls, for a person."""
        account = self.usage.account
        if account is None:
            return "not configured here"
        return f"{account.rate_per_second:g}/s, burst {account.burst}"

    def to_dict(self) -> dict[str, Any]:
        """Return the object of the JSON output. Its names are stable. The key is not shown."""
        usage, account = self.usage, self.usage.account
        return {
            "id": usage.account_id,
            "usageToday": usage.used,
            "dailyLimit": usage.limit,
            "limitFrom": self.limit_source,
            "left": usage.left,
            "refusedBy": [{"owner": owner, "reason": why} for owner, why in self.refusals.items()],
            "windowStart": f"{usage.window:%Y-%m-%dT%H:%M:%SZ}",
            "windowEnd": f"{usage.window_ends:%Y-%m-%dT%H:%M:%SZ}",
            "isConfigured": account is not None,
            "plan": account.plan if account else None,
            "ratePerSecond": account.rate_per_second if account else None,
            "burst": account.burst if account else None,
        }


def account_rows(client: Any, configured: Sequence[Account]) -> Iterator[list[AccountRow]]:
    """Yield the configured accounts, then those that only have a usage document, as one page.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    refused = {worker.owner: worker.refused_accounts for worker, _ in live_workers(client)}
    yield [
        AccountRow(
            usage=usage,
            refusals={
                owner: reasons[usage.account_id]
                for owner, reasons in refused.items()
                if usage.account_id in reasons
            },
        )
        for usage in read_usages(client, configured)
    ]


def window_end(usage: AccountUsage) -> str:
    """Return when the count starts again, in UTC, for a person."""
    return f"{usage.window_ends:%Y-%m-%d %H:%M}"


def text_of(number: int | None) -> str:
    """Return a number for a column."""
    return "-" if number is None else str(number)
