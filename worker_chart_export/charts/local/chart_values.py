"""The numbers that a chart shows, as JSON: for each bar, and short for the newest one.

A number has 12 significant digits, and is None where a plot has no value. Plots that are hidden are left out,
as the numbers are those of the picture. A plot that is moved has its values at the bars where it is drawn. A
volume profile has one value at all bars: its point of control, if that is shown.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.local.input.candles import parse_timeframe

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from worker_chart_export.charts.local.layout.plan import Plan
    from worker_chart_export.charts.local.studies.study import Study

#: The most bytes of JSON that `last_values` returns.
MAX_LAST_VALUES_BYTES = 2048
_DIGITS = 12
_PRICES = ("open", "high", "low", "close", "volume")


def chart_values(plan: Plan, *, timeframe: str) -> dict[str, Any]:
    """Return the numbers of all bars shown, by study and plot.

    Args:
        plan: The chart.
        timeframe: The timeframe of the request, e.g. `1d`.

    Returns:
        `symbol`, `timeframe` (another one if the template draws longer bars), `bars` (their dates) and
        `studies`. Each has `name`, `input` (all inputs), `settledFrom` (index of the first bar shown from
        which the values do not depend on where the file begins; None if all do) and `plots`.
    """
    drawn = plan.options.timeframe
    return {
        "symbol": plan.options.symbol,
        "timeframe": timeframe if parse_timeframe(timeframe) == drawn else drawn.label,
        "bars": [iso(date) for date in plan.visible.dates],
        "studies": [
            {
                "name": study.name,
                "input": study.inputs,
                "settledFrom": _settled_from(study, plan),
                "plots": _plots(study, plan.grid.first, plan.grid.count),
            }
            for study in plan.studies
        ],
    }


def last_values(plan: Plan) -> dict[str, Any]:
    """Return the newest bar and the studies' values at it, in at most `MAX_LAST_VALUES_BYTES`.

    Returns:
        `lastBar` (`date`, `open`, `high`, `low`, `close`, `volume`) and `studies`, each with `name`, `input`
        and `plots`. The last studies are left out if they have no room, and counted as `studiesLeftOut`.
    """
    newest = len(plan.candles) - 1
    prices = {name: _rounded(float(getattr(plan.candles, name)[-1])) for name in _PRICES}
    studies: list[dict[str, Any]] = [
        {
            "name": study.name,
            "input": study.inputs,
            "plots": {key: values[0] for key, values in _plots(study, newest, 1).items()},
        }
        for study in plan.studies
    ]
    last: dict[str, Any] = {"lastBar": {"date": iso(plan.candles.dates[-1]), **prices}, "studies": studies}
    for kept in range(len(studies) - 1, -1, -1):
        if len(encode(last)) <= MAX_LAST_VALUES_BYTES:
            break
        last |= {"studies": studies[:kept], "studiesLeftOut": len(studies) - kept}
    return last


def iso(date: datetime) -> str:
    """Return a date of candles, e.g. `2013-03-01T00:00:00Z`."""
    return date.isoformat().replace("+00:00", "Z")


def encode(values: dict[str, Any]) -> bytes:
    """Return numbers as compact JSON in UTF-8."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()


def _settled_from(study: Study, plan: Plan) -> int | None:
    first = max(study.settled_from - plan.grid.first, 0)
    return first if first < plan.grid.count else None


def _plots(study: Study, first: int, count: int) -> dict[str, list[float | None]]:
    """Return the values of `count` bars from bar `first` of the history on."""
    plots = {plot.key: _numbers(plot.values[first : first + count].tolist()) for plot in study.plots}
    if study.profile and study.profile.control:
        control = study.profile.control
        plots[control.key] = [_rounded(control.value)] * count
    return plots


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_rounded(value) for value in values]


def _rounded(value: float) -> float | None:
    # Zero is added so that minus zero becomes zero.
    return float(f"{value:.{_DIGITS}g}") + 0.0 if math.isfinite(value) else None
