"""The Chart-IMG accounts of `CHART_IMG_ACCOUNTS_JSON`: read and checked, and never quoted."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, field_validator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

ACCOUNTS_EXPECTED = (
    'a JSON array of {"id": "...", "apiKey": "...", "dailyLimit"?: 44, "ratePerSecond"?: 1, "burst"?: 3, '
    '"plan"?: "BASIC", "maxParameters"?: 3} with at least one account, ids and keys unique, numbers above 0'
)
#: An id is also the name of the account's usage document.
ACCOUNT_ID = r"^(?!\.{1,2}\Z)(?!__.*__\Z)[^/\x00-\x1f]{1,128}\Z"
MAX_BYTES = 2**20
#: What an HTTP header can hold; a line end that slipped into a key could not stand there.
API_KEY = r"^[\x21-\x7e]+$"
#: A shorter one may stand in an id by chance.
MIN_KEY_CHARS = 8
WHOLE = "a whole number above 0"


class AccountsRefused(ValueError):
    """Some accounts are wrong; says which, in which field, and what was expected, never what was there."""


class AccountSettings(BaseModel):
    """One account; names as in the JSON, descriptions as errors tell what was expected."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, regex_engine="python-re"
    )

    id: Annotated[
        str,
        Field(
            pattern=ACCOUNT_ID,
            description="1-128 characters without / or control characters, not ., .. or __*__",
        ),
    ]
    """The name of the account in logs, metrics and its usage document."""
    api_key: Annotated[
        SecretStr, Field(alias="apiKey", description="a text of printable ASCII without spaces")
    ]
    """The key. Never shown."""
    daily_limit: Annotated[int, Field(alias="dailyLimit", gt=0, strict=True, description=WHOLE)] = 44
    """How many calls the account may make in a day (UTC), over all workers."""
    rate_per_second: Annotated[
        float,
        Field(
            alias="ratePerSecond", gt=0, le=1000, strict=True, description="a number above 0, at most 1000"
        ),
    ] = 1.0
    """How many calls one process makes in a second."""
    burst: Annotated[
        int, Field(gt=0, le=10_000, strict=True, description="a whole number from 1 to 10000")
    ] = 3
    """How many calls one process may make at once before the rate applies."""
    plan: Annotated[
        Literal["BASIC", "PRO", "MEGA", "ULTRA", "ENTERPRISE"] | None,
        Field(description="one of BASIC, PRO, MEGA, ULTRA, ENTERPRISE"),
    ] = None
    """The Chart-IMG plan. `templates validate` uses it to say which account can make a chart."""
    max_parameters: Annotated[
        int | None, Field(alias="maxParameters", gt=0, strict=True, description=WHOLE)
    ] = None
    """How many studies and drawings the plan allows in one chart, if it differs from the plan's own number.
    """

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        if re.fullmatch(API_KEY, value.get_secret_value()) is None:
            raise _refused()
        return value


_ACCOUNTS = TypeAdapter(list[AccountSettings])
_FIELDS = {field.alias or name: field for name, field in AccountSettings.model_fields.items()}


def parse_accounts(text: str) -> list[AccountSettings]:
    """The accounts, in order.

    Raises:
        AccountsRefused: Some are wrong; says which and how.
        ValueError: They are no accounts at all. Neither holds anything of the text it is about.
    """
    try:
        accounts = _ACCOUNTS.validate_json(text)
    except ValidationError as error:
        raise _why_refused(error.errors(include_url=False, include_input=False)) from None
    except RecursionError:
        raise _refused() from None
    if not accounts:
        raise _refused()
    if clashes := dict.fromkeys(_clashes(accounts)):
        raise AccountsRefused("; ".join(clashes))
    return accounts


def read_accounts_file(file: Path) -> str:
    """The file's text.

    Raises:
        ValueError: It is no file of a sensible size, or can't be read as text.
    """
    try:
        if not file.is_file() or file.stat().st_size > MAX_BYTES:  # a pipe would be waited for
            raise _refused()
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise _refused() from None


def _refused() -> ValueError:
    return ValueError(f"expected {ACCOUNTS_EXPECTED}")


def _why_refused(problems: Sequence[ErrorDetails]) -> ValueError:
    if not all(problem["loc"] for problem in problems):
        return _refused()
    return AccountsRefused("; ".join(dict.fromkeys(_sentence(problem) for problem in problems)))


def _sentence(problem: ErrorDetails) -> str:
    """A field's name is told if it is one of ours: a key may have slipped into another."""
    index, *names = problem["loc"]
    field = _FIELDS.get(str(names[0])) if names else None
    if field is None:
        return f"[{index}]: expected an object of {', '.join(_FIELDS)} alone"
    return f"[{index}].{names[0]}: expected {field.description}"


def _clashes(accounts: Sequence[AccountSettings]) -> Iterator[str]:
    """What each account alone can't tell: counts that would be one, and keys that would be shown."""
    for (_, one), (place, other) in combinations(enumerate(accounts), 2):
        if one.id == other.id:
            yield f"[{place}].id: expected an id that no other account has"
        if one.api_key == other.api_key:
            yield f"[{place}].apiKey: expected a key that no other account has"
    keys = [account.api_key.get_secret_value() for account in accounts]
    for place, account in enumerate(accounts):
        if any(key == account.id or (len(key) >= MIN_KEY_CHARS and key in account.id) for key in keys):
            yield f"[{place}].id: expected an id that holds no key; it is shown everywhere"
