"""The Chart-IMG accounts of `CHART_IMG_ACCOUNTS_JSON`: read and checked, and never quoted."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ACCOUNTS_EXPECTED = 'a JSON array of {"id": "...", "apiKey": "..."} with at least one account'
#: What an HTTP header can hold; a line end that slipped into a key could not stand there.
API_KEY = re.compile(r"[\x21-\x7e]+")


def parse_accounts(text: str) -> list[tuple[str, str]]:
    """Ids and keys, in order.

    Raises:
        ValueError: They are not as expected; holds nothing of the text it is about.
    """
    try:
        accounts = [(entry["id"], entry["apiKey"]) for entry in json.loads(text)]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _refused() from None
    if not accounts or not all(_is_account(*account) for account in accounts):
        raise _refused()
    return accounts


def read_accounts_file(file: Path) -> str:
    """The file's text.

    Raises:
        ValueError: It can't be read as text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise _refused() from None


def _is_account(account_id: object, api_key: object) -> bool:
    has_id = isinstance(account_id, str) and account_id != ""
    return has_id and isinstance(api_key, str) and API_KEY.fullmatch(api_key) is not None


def _refused() -> ValueError:
    return ValueError(f"expected {ACCOUNTS_EXPECTED}")
