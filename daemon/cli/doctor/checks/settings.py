"""Check the settings, and load the parts of them that are valid."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from daemon.cli.doctor.results import failure, ok, warning
from daemon.settings import Environment, Settings, SettingsError, load_settings, misspelt_settings

if TYPE_CHECKING:
    from daemon.cli.doctor.results import CheckResult

CHECK = "settings"
SPELLING = "settings.spelling"

S = TypeVar("S", bound=Environment)


def check_settings() -> list[CheckResult]:
    """Return a failure for each wrong setting, and a warning for each name that is probably misspelt.

    Secrets are not shown.
    """
    misspelt = [
        warning(SPELLING, text, "correct the name, or remove the variable")
        for text in misspelt_settings(os.environ)
    ]
    try:
        settings = load_settings(Settings)
    except SettingsError as error:
        return [
            failure(f"{CHECK}.{problem.partition(':')[0]}", problem) for problem in error.problems
        ] + misspelt
    return [ok(CHECK, f"all valid; CHARTS_API_MODE={settings.charts_api_mode}"), *misspelt]


def load_part(kind: type[S]) -> S | None:
    """Load settings of one kind, or return None if some of them are wrong."""
    try:
        return load_settings(kind)
    except SettingsError:
        return None
