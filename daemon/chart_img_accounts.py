"""The Chart-IMG accounts of `CHART_IMG_ACCOUNTS_JSON`: read and checked, and never quoted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, field_validator

if TYPE_CHECKING:
    from pathlib import Path

ACCOUNTS_EXPECTED = (
    'a JSON array of {"id": "...", "apiKey": "...", "dailyLimit"?: 44, "ratePerSecond"?: 1, "burst"?: 3, '
    '"plan"?: "BASIC", "maxParameters"?: 3} with at least one account, ids unique, numbers above 0'
)
#: An id is also the name of the account's usage document.
ACCOUNT_ID = r"^(?!\.{1,2}\Z)(?!__.*__\Z)[^/\x00-\x1f]{1,128}\Z"
#: What an HTTP header can hold; a line end that slipped into a key could not stand there.
API_KEY = r"^[\x21-\x7e]+$"


class AccountSettings(BaseModel):
    """One account; names as in the JSON."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, regex_engine="python-re"
    )

    id: Annotated[str, Field(pattern=ACCOUNT_ID)]
    api_key: Annotated[SecretStr, Field(alias="apiKey")]
    daily_limit: Annotated[int, Field(alias="dailyLimit", gt=0, strict=True)] = 44
    rate_per_second: Annotated[float, Field(alias="ratePerSecond", gt=0, le=1000)] = 1.0
    burst: Annotated[int, Field(gt=0, le=10_000, strict=True)] = 3
    plan: Literal["BASIC", "PRO", "MEGA", "ULTRA", "ENTERPRISE"] | None = None
    max_parameters: Annotated[int | None, Field(alias="maxParameters", gt=0, strict=True)] = None

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        if re.fullmatch(API_KEY, value.get_secret_value()) is None:
            raise _refused()
        return value


_ACCOUNTS = TypeAdapter(list[AccountSettings])


def parse_accounts(text: str) -> list[AccountSettings]:
    """The accounts, in order.

    Raises:
        ValueError: They are not as expected; holds nothing of the text it is about.
    """
    try:
        accounts = _ACCOUNTS.validate_json(text)
    except (ValidationError, RecursionError):
        raise _refused() from None
    if not accounts or len({account.id for account in accounts}) < len(accounts):
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


def _refused() -> ValueError:
    return ValueError(f"expected {ACCOUNTS_EXPECTED}")
