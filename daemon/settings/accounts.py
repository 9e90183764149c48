"""Read the Chart-IMG accounts of `CHART_IMG_ACCOUNTS_JSON`. No error quotes the text: it holds keys."""

from __future__ import annotations

import re
from difflib import get_close_matches
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
#: Where the parser found an error.
_PLACE = re.compile(r"line \d+ column \d+")
_COMPARED = {name.casefold(): name for name in _FIELDS}
#: The least similarity, from 0 to 1, at which an unknown field is taken for a misspelt one.
_SIMILARITY = 0.75


class AccountsRefused(ValueError):
    """The accounts are wrong. The message says what was expected and holds no text of theirs."""


class NoAccounts(AccountsRefused):
    """There is no list of accounts; `got` says what there is instead."""

    def __init__(self, got: str) -> None:
        super().__init__(f"expected {ACCOUNTS_EXPECTED}, got {got}")
        self.got = got


def parse_accounts(text: str) -> list[Account]:
    """Parse the accounts, in order of priority.

    Raises:
        AccountsRefused: They are wrong.
    """
    try:
        accounts = _ACCOUNTS.validate_json(text.removeprefix("\ufeff"), by_alias=True, by_name=False)
    except ValidationError as error:
        raise _describe(error.errors(include_url=False, include_input=False)) from None
    except RecursionError:
        raise NoAccounts("values inside one another") from None
    if not accounts:
        raise NoAccounts("an empty array")
    if conflicts := dict.fromkeys(_conflicts(accounts)):
        raise AccountsRefused("; ".join(conflicts))
    return accounts


def read_accounts_file(file: Path) -> str:
    """Return the text of the file.

    Raises:
        AccountsRefused: It is not a regular file of at most 1 MiB, or can't be read as text.
    """
    try:
        if not file.is_file():  # reading a pipe could block forever
            raise NoAccounts("a folder or a device" if file.exists() else "no such file")
        if file.stat().st_size > MAX_BYTES:
            raise NoAccounts(f"more than {MAX_BYTES} bytes")
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NoAccounts(error.strerror or "a file that can't be read") from None
    except UnicodeError:
        raise NoAccounts("a file that is not UTF-8") from None


def _describe(problems: Sequence[ErrorDetails]) -> AccountsRefused:
    """Describe all problems that the parser found."""
    for problem in problems:
        if problem["type"] == "json_invalid":
            place = _PLACE.search(problem["msg"])
            return NoAccounts(f"text that is not JSON{f' ({place[0]})' if place else ''}")
        if not problem["loc"]:
            return NoAccounts("JSON that is not an array")
    return AccountsRefused("; ".join(dict.fromkeys(map(_sentence, problems))))


def _sentence(problem: ErrorDetails) -> str:
    """Describe a wrong account. An unknown field is quoted only if it is nearly known: it may be a key."""
    index, *names = problem["loc"]
    if not names:
        return f"[{index}]: expected an object of {', '.join(_FIELDS)} alone"
    name = str(names[0])
    if (field := _FIELDS.get(name)) is not None:
        missing = ", got nothing" if problem["type"] == "missing" else ""
        return f"[{index}].{name}: expected {field.description}{missing}"
    for near in get_close_matches(name.casefold(), _COMPARED, n=1, cutoff=_SIMILARITY):
        return f"[{index}].{name}: no such field; did you mean {_COMPARED[near]}?"
    return f"[{index}]: expected an object of {', '.join(_FIELDS)} alone"


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
