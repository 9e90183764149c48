"""The `meta` of a chart in the metadata of its object, for a later attempt that uses the chart again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.base import FALLBACK_FROM
from worker_chart_export.outputs.manifest import NUMBERS_META

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The entries of a chart's `meta` that its object's metadata has too.
KEPT_META = ("provider", "templateVersion", FALLBACK_FROM)
#: The entry of an object's metadata with the numbers of its chart as JSON, and the entries of `meta` in it.
KEPT_NUMBERS = "chartValues"
NUMBERS = (*NUMBERS_META, "candleNotes")


def metadata_of(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a chart's object with the entries of `meta` that are kept."""
    numbers = {key: meta[key] for key in NUMBERS if key in meta}
    text = json.dumps(numbers, ensure_ascii=False, separators=(",", ":"))
    return _texts(meta) | ({KEPT_NUMBERS: text} if numbers else {})


def meta_from(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what `metadata_of` has kept. Entries that somebody has changed are left out."""
    try:
        numbers = json.loads(metadata.get(KEPT_NUMBERS, "{}"))
    except (ValueError, RecursionError):
        numbers = {}
    known = numbers if isinstance(numbers, dict) else {}
    return {key: known[key] for key in NUMBERS if key in known} | _texts(metadata)


def _texts(meta: Mapping[str, Any]) -> dict[str, str]:
    return {key: meta[key] for key in KEPT_META if key in meta}
