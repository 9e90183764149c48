"""The commands `accounts`, `accounts limit` and `accounts test`: the quota of the Chart-IMG accounts."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.lists.printing import print_list
from daemon.cli.operator import audit, log_to_standard_error, require_consent
from daemon.cli.output import OutputFormat, examples
from daemon.cli.places import place_of
from daemon.exit import ExitCode
from daemon.reports.wording import plural
from worker_chart_export.errors import shown, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.settings import ChartSettings
    from worker_chart_export.charts.chart_img.accounts import Account
    from worker_chart_export.charts.chart_img.usage import AccountUsage

#: Larger limits are mistakes. No plan allows so many calls.
MAX_LIMIT = 1_000_000

app = typer.Typer(
    name="accounts",
    help="Show the quota of the Chart-IMG accounts, change a limit, or try a key.",
    epilog=examples("accounts", "accounts --output json", "accounts limit main 100", "accounts test main"),
)
AccountId = Annotated[str, typer.Argument(help="The id of the account.", metavar="ID")]
OutputOption = Annotated[OutputFormat, typer.Option("--output", help="The form of the results.")]


@app.callback(invoke_without_command=True)
def accounts(context: typer.Context, output: OutputOption = OutputFormat.TEXT) -> None:
    """Show the quota of the Chart-IMG accounts, change a limit, or try a key.

    Without a sub-command, show what each account has used in its window (a day in UTC).
    Accounts that only have a usage document are shown too. Rates are those of one daemon.

    Exit code 0: the list was printed. 2: bad settings or arguments. 3: Firestore refuses or
    does not answer.
    """
    if context.invoked_subcommand is not None:
        return
    from daemon.cli.lists.accounts import COLUMNS, account_rows

    configured = _configured(_chart_settings())
    print_list(lambda client: account_rows(client, configured), COLUMNS, limit=None, output=output)


@app.command(epilog=examples("accounts limit main 100", "accounts limit main 0"))
def limit(
    account_id: AccountId,
    calls: Annotated[
        int,
        typer.Argument(
            min=0, max=MAX_LIMIT, help="Calls a day (UTC), over all workers. 0: none.", metavar="N"
        ),
    ],
) -> None:
    """Change how many calls an account may make in a day, for all workers, from now on.

    The limit is stored in the account's usage document and wins over that of the settings.
    Daemons that have found the account used up read it again within about a minute.

    Exit code 0: the limit is stored. 2: bad settings or arguments, or no such account. 3:
    Firestore refuses or does not answer.
    """
    from daemon.cli.lists.accounts import text_of
    from worker_chart_export.charts.chart_img.usage import read_usages, set_limit

    configured = _configured(_chart_settings())
    log_to_standard_error()
    with _firestore() as client:
        usage = _find(account_id, read_usages(client, configured))
        before = set_limit(client, account_id, calls)
    if before == calls:
        typer.echo(f"unchanged: account {account_id} may make {plural(calls, 'call')} a day")
        return
    was = text_of(usage.limit) if before is None else str(before)
    origin = ", from the settings" if before is None and usage.limit is not None else ""
    sentence = f"account {account_id} may make {plural(calls, 'call')} a day (before: {was}{origin})"
    audit("accounts limit", sentence, accountId=account_id, dailyLimit=calls, before=before)
    typer.echo(f"changed: {sentence}")


@app.command("test", epilog=examples("accounts test main", "accounts test main --yes"))
def try_account(
    account_id: AccountId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Request one chart with an account. This uses one call of its quota, so it asks first.

    Exit code 0: Chart-IMG answered with a chart. Exit code 1: it did not, or no call is left.
    """
    from daemon.cli.doctor.checks.accounts import call_once
    from daemon.cli.lists.accounts import window_end
    from worker_chart_export.charts.chart_img.answers import Meaning
    from worker_chart_export.charts.chart_img.usage import read_usage

    settings = _chart_settings()
    configured = _configured(settings)
    account = next((one for one in configured if one.id == account_id), None)
    if account is None:
        raise _unknown(account_id, [one.id for one in configured], "configured here")
    with _firestore() as client:
        usage = read_usage(client, account)
        if not usage.left:
            until = window_end(usage)
            typer.echo(f"error: account {account_id} has no call left until {until} UTC", err=True)
            raise typer.Exit(ExitCode.JOB_FAILED)
        cost = f"A request to {settings.chart_img_base_url} uses one of the {usage.left} calls that are left"
        typer.echo(f"{cost} of account {account_id}.", err=True)
        require_consent("Make it?", yes=yes)
        log_to_standard_error()
        trial = call_once(client, [account], settings.chart_img_base_url)
    is_chart = trial.meaning is Meaning.CHART
    text = "a chart" if is_chart else trial.text
    audit("accounts test", f"account {account_id} was tried: {text}", accountId=account_id)
    typer.echo(f"account {account_id}: {visible(text)}")
    raise typer.Exit(ExitCode.OK if is_chart else ExitCode.JOB_FAILED)


def _chart_settings() -> ChartSettings:
    from daemon.settings import ChartsApiMode, ChartSettings, load_settings

    return load_settings(ChartSettings, charts_api_mode=ChartsApiMode.LOCAL)  # accounts are optional


def _configured(settings: ChartSettings) -> list[Account]:
    return settings.accounts if settings.chart_img_accounts_json is not None else []


@contextmanager
def _firestore() -> Iterator[Any]:
    from daemon.clients import firestore_client
    from daemon.settings import FirestoreSettings, load_settings

    settings = load_settings(FirestoreSettings)
    with closing(firestore_client(settings.google_cloud_project, settings.firestore_db)) as client:
        yield client


def _find(account_id: str, usages: Sequence[AccountUsage]) -> AccountUsage:
    for usage in usages:
        if usage.account_id == account_id:
            return usage
    where = f"configured here, or with a usage document ({place_of('firestore')})"
    raise _unknown(account_id, [usage.account_id for usage in usages], where)


def _unknown(account_id: str, known: Sequence[str], where: str) -> typer.BadParameter:
    names = ", ".join(known) or "none"
    return typer.BadParameter(f"ID: expected an account {where}: {names}; got {shown(account_id)}")
