"""Read the Chart-IMG accounts of `CHART_IMG_ACCOUNTS_JSON`. No error quotes the text: it holds keys."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from worker_chart_export.charts.chart_img.accounts import Account

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

ACCOUNTS_EXPECTED = (
    'a JSON array of {"id": "...", "apiKey": "...", "dailyLimit"?: 44, "ratePerSecond"?: 1, "burst"?: 3, '
    '"plan"?: "BASIC", "maxParameters"?: 3} with at least one account, ids and keys unique, numbers above 0'
)
MAX_BYTES = 2**20
#: A shorter key may be a part of an id by chance.
MIN_KEY_CHARS = 8

_ACCOUNTS = TypeAdapter(list[Account])
_FIELDS = {str(field.validation_alias or name): field for name, field in Account.model_fields.items()}


class AccountsRefused(ValueError):
    """Some accounts are wrong. The message names the account, the field, and what was expected."""


def parse_accounts(text: str) -> list[Account]:
    """Parse the accounts, in order of priority.

    Raises:
        AccountsRefused: Some accounts are wrong.
        ValueError: The text is not a list of accounts. Neither error quotes the text.
    """
    try:
        accounts = _ACCOUNTS.validate_json(text, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        if not all(problem["loc"] for problem in problems):
            raise _no_accounts() from None
        raise AccountsRefused("; ".join(dict.fromkeys(_sentence(problem) for problem in problems))) from None
    except RecursionError:
        raise _no_accounts() from None
    if not accounts:
        raise _no_accounts()
    if conflicts := dict.fromkeys(_conflicts(accounts)):
        raise AccountsRefused("; ".join(conflicts))
    return accounts


def read_accounts_file(file: Path) -> str:
    """Return the text of the file.

    Raises:
        ValueError: It is not a regular file of at most 1 MiB, or can't be read as text.
    """
    try:
        if not file.is_file() or file.stat().st_size > MAX_BYTES:  # reading a pipe could block forever
            raise _no_accounts()
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise _no_accounts() from None


def _no_accounts() -> ValueError:
    return ValueError(f"expected {ACCOUNTS_EXPECTED}")


def _sentence(problem: ErrorDetails) -> str:
    """Describe a wrong account. Only known field names are quoted: an unknown one may be a misplaced key."""
    index, *names = problem["loc"]
    field = _FIELDS.get(str(names[0])) if names else None
    if field is None:
        return f"[{index}]: expected an object of {', '.join(_FIELDS)} alone"
    return f"[{index}].{names[0]}: expected {field.description}"


def _conflicts(accounts: Sequence[Account]) -> Iterator[str]:
    """Find ids and keys that are used twice, and ids that contain a key."""
    for (_, one), (index, other) in combinations(enumerate(accounts), 2):
        if one.id == other.id:
            yield f"[{index}].id: expected an id that no other account has"
        if one.api_key == other.api_key:
            yield f"[{index}].apiKey: expected a key that no other account has"
    keys = [account.api_key.get_secret_value() for account in accounts]
    for index, account in enumerate(accounts):
        if any(key == account.id or (len(key) >= MIN_KEY_CHARS and key in account.id) for key in keys):
            yield f"[{index}].id: expected an id that holds no key; it is shown everywhere"
