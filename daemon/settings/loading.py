"""Load settings from the environment, and show the effective ones.

The name of a field is the name of its variable in lower case. The description of a field is the
expected value in an error message. All errors are reported at once.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from daemon.settings.accounts import AccountsRefused, NoAccounts
from daemon.settings.base import Environment, SettingsError
from daemon.settings.daemon import Settings
from daemon.settings.tracing import TRACING_SECRETS
from worker_chart_export.errors import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

#: Never shown, not even in an error message.
SECRETS = TRACING_SECRETS | {"chart_img_accounts_json"}
S = TypeVar("S", bound=Environment)


def load_settings(kind: type[S], **overrides: Any) -> S:
    """Read the settings of one kind from the environment; `overrides` (by field name) replace its values.

    An empty variable counts as absent. The names of variables are read in any case.

    Raises:
        SettingsError: Lists every setting that is wrong.
    """
    variables = {name.lower(): value for name, value in os.environ.items() if value}
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return kind.model_validate(variables | given)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise SettingsError([_sentence(kind, problem) for problem in problems]) from None


def effective_settings(settings: Settings) -> Mapping[str, str]:
    """Return the values of all variables as text, secrets hidden."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return {
        name.upper(): "" if value is None else "(hidden)" if name in SECRETS else str(value)
        for name, value in values.items()
    }


def _sentence(kind: type[Environment], problem: ErrorDetails) -> str:
    """Describe one wrong setting. A value that may hold a secret is not quoted."""
    name = str(problem["loc"][0])
    refused_accounts = problem.get("ctx", {}).get("error")
    got_instead = refused_accounts.got if isinstance(refused_accounts, NoAccounts) else None
    if isinstance(refused_accounts, AccountsRefused) and got_instead is None:
        return f"{name.upper()}: {refused_accounts}"
    expected = kind.model_fields[name].description
    if problem["type"] == "missing":
        return f"{name.upper()}: expected {expected}; required, got nothing"
    if problem["input"] is None:
        return f"{name.upper()}: expected {expected}, got nothing"
    given = str(problem["input"])
    # These may be secrets: JSON in place of a file name, and the password or query of a URL.
    is_json = name == "chart_img_accounts_file" and not set(given).isdisjoint('[]{}"')
    is_secret_url = name.endswith(("_url", "_endpoint")) and not set(given).isdisjoint("@?#")
    got = "(hidden)" if name in SECRETS or is_json or is_secret_url else shown(given)
    if got_instead is not None:
        got = got_instead if name in SECRETS else f"{got} ({got_instead})"
    return f"{name.upper()}: expected {expected}, got {got}"
