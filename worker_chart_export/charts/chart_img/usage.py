"""Read how much of their quota the accounts have used, and change the limit of one. For commands.

The documents are those of `quota`, which the workers count in.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.firestore import (
    LostRace,
    OutcomeUnknown,
    Unacceptable,
    document_ids,
    read_document,
    read_documents,
    send,
)
from worker_chart_export.charts.chart_img.usage_document import (
    DAY,
    UNREADABLE_COUNT,
    USAGE,
    stored_limit,
    take,
    window_of,
)
from worker_chart_export.errors import FIRESTORE, BackendRefused
from worker_chart_export.timing import Backoff

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from worker_chart_export.backends.firestore import LazySnapshot
    from worker_chart_export.charts.chart_img.accounts import Account

#: Workers write a document about once a second, so a few races may be lost.
MAX_COMMITS = 8
BACKOFF = Backoff(first_seconds=0.1, max_seconds=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUsage:
    """How much of its quota an account has used in its present window.

    Attributes:
        account_id: The account.
        account: Its settings; None if this environment does not configure it.
        used: Counted calls; None if the document's count can't be read, which stops the account.
        limit: Calls that the window allows; None if neither the document nor the settings hold a limit.
        is_own_limit: The limit is that of the document.
        window: The start of the window, midnight UTC.
    """

    account_id: str
    account: Account | None
    used: int | None
    limit: int | None
    is_own_limit: bool
    window: datetime

    @property
    def left(self) -> int | None:
        """Calls that are left; None if the limit is not known."""
        if self.limit is None:
            return None
        return 0 if self.used is None else max(0, self.limit - self.used)

    @property
    def window_ends(self) -> datetime:
        """When the count starts again."""
        return self.window + DAY


def read_usages(client: Any, accounts: Sequence[Account]) -> list[AccountUsage]:
    """Read the usage of the accounts in their order, and of those that only have a document.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    configured = {account.id: account for account in accounts}
    folder = client.collection(USAGE)
    names = [*configured, *(name for name in document_ids(folder) if name not in configured)]
    found = read_documents(client, [folder.document(name) for name in names])
    return [
        _usage_of(name, configured.get(name), document)
        for name, document in zip(names, found, strict=True)
        if name in configured or document.fields is not None
    ]


def read_usage(client: Any, account: Account) -> AccountUsage:
    """Read the usage of one account. Errors as `read_usages`."""
    return _usage_of(account.id, account, read_document(client, USAGE, account.id))


def set_limit(client: Any, account_id: str, limit: int) -> int | None:
    """Write the account's limit into its usage document, and return the limit that was there before.

    The write fails if a worker has changed the document since it was read. Then it is read again.

    Raises:
        BackendUnavailable: Firestore was unavailable, or each race was lost.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(USAGE).document(account_id)
    before, is_unknown = None, False
    for failures in itertools.count(1):
        (found,) = read_documents(client, [reference])
        stored = None if found.fields is None else stored_limit(found.fields)
        if not is_unknown:  # else it may be the limit of the commit before
            before = stored
        if stored == limit:
            break
        try:
            _commit_limit(client, reference, found, limit)
            break
        except (LostRace, OutcomeUnknown) as error:
            if failures == MAX_COMMITS:
                raise
            is_unknown |= isinstance(error, OutcomeUnknown)
            threading.Event().wait(BACKOFF.delay_seconds(failures))
    return before


def _commit_limit(client: Any, reference: Any, found: LazySnapshot, limit: int) -> None:
    write = client.batch()
    if found.fields is None:
        start = f"{window_of(found.read_time):%Y-%m-%dT%H:%M:%SZ}"
        write.create(reference, {"windowStart": start, "usageToday": 0, "dailyLimit": limit})
    else:
        option = client.write_option(last_update_time=found.update_time)
        write.update(reference, {"dailyLimit": limit}, option=option)
    try:
        send(write)
    except Unacceptable as error:
        raise BackendRefused(FIRESTORE, str(error)) from error


def _usage_of(account_id: str, account: Account | None, found: LazySnapshot) -> AccountUsage:
    own_limit = None if found.fields is None else stored_limit(found.fields)
    default = account.daily_limit if account else None
    taken = take(found.fields, wanted=0, daily_limit=default or 0, now=found.read_time)
    return AccountUsage(
        account_id=account_id,
        account=account,
        used=None if taken.used >= UNREADABLE_COUNT else taken.used,
        limit=default if own_limit is None else own_limit,
        is_own_limit=own_limit is not None,
        window=taken.window,
    )
