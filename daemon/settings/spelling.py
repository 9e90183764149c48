"""Find variables of the environment whose names are nearly those of settings. They have no effect."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from daemon.settings.daemon import Settings
from daemon.settings.tracing import TracingSettings
from worker_chart_export.errors import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EMULATOR_HOSTS = frozenset({"PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"})
#: Variables that Google's clients read for other purposes.
OTHER = frozenset(
    {
        "GOOGLE_CLOUD_QUOTA_PROJECT",
        "DATASTORE_EMULATOR_HOST",
        "BIGTABLE_EMULATOR_HOST",
        "SPANNER_EMULATOR_HOST",
    }
)
KNOWN = EMULATOR_HOSTS | {name.upper() for kind in (Settings, TracingSettings) for name in kind.model_fields}
#: OpenTelemetry has many variables that differ little and mean different things.
#: Short names are near to anything.
COMPARED = sorted(name for name in KNOWN if not name.startswith("OTEL_") and len(name) > len("TDA_ENV"))
UNITS = frozenset({"SECONDS", "BYTES"})
#: The least similarity, from 0 to 1. One or two wrong letters in a name of ten are above it.
SIMILARITY = 0.86


def misspelt_settings(environment: Mapping[str, str]) -> list[str]:
    """Return one sentence for each variable whose name is probably misspelt. Values are not shown."""
    unknown = sorted(name for name in environment if name.upper() not in KNOWN | OTHER)
    return [
        f"{shown(name)} is not a setting and has no effect; did you mean {meant}?"
        for name in unknown
        if (meant := _nearest(name.upper())) is not None
    ]


def _nearest(name: str) -> str | None:
    """Return the setting that is near: a word or the unit is missing, or a few letters differ."""
    shorter = next((setting for setting in COMPARED if name in _without_a_word(setting)), None)
    return shorter or next(iter(get_close_matches(name, COMPARED, n=1, cutoff=SIMILARITY)), None)


def _without_a_word(setting: str) -> Iterator[str]:
    """Return the setting without its unit, and without a word in its middle, if two words remain."""
    first, *middle, last = setting.split("_")
    if last in UNITS:
        yield setting.removesuffix(f"_{last}")
    if setting not in EMULATOR_HOSTS:  # FIRESTORE_HOST may be a variable of another program
        for place in range(len(middle)):
            yield "_".join([first, *middle[:place], *middle[place + 1 :], last])
