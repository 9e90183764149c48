"""Check the settings, and load the parts of them that are valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from daemon.cli.doctor.results import failure, ok
from daemon.settings import Environment, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from daemon.cli.doctor.results import CheckResult

CHECK = "settings"

S = TypeVar("S", bound=Environment)


def check_settings() -> list[CheckResult]:
    """Return a failure for each wrong setting, with the allowed values; secrets are not shown."""
    try:
        settings = load_settings(Settings)
    except SettingsError as error:
        return [failure(f"{CHECK}.{problem.partition(':')[0]}", problem) for problem in error.problems]
    return [ok(CHECK, f"all valid; CHARTS_API_MODE={settings.charts_api_mode}")]


def load_part(kind: type[S]) -> S | None:
    """Load settings of one kind, or return None if some of them are wrong."""
    try:
        return load_settings(kind)
    except SettingsError:
        return None
