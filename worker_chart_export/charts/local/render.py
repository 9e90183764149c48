"""From a candle file and a request body to a PNG, in four stages that can be stopped in between."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.local.drawing.canvas import paint
from worker_chart_export.charts.local.drawing.draw_list import build_draw_list
from worker_chart_export.charts.local.drawing.png import encode_png
from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.charts.local.input.options import read_options
from worker_chart_export.charts.local.layout.plan import Plan, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.charts.local.input.candles import Candles

#: Candle files up to this size are remembered for the step's next chart.
_KEPT_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedChart:
    """A chart drawn here.

    Attributes:
        png: The whole PNG file.
        facts: How it was made, JSON-serialisable: `candles` shown, `warmUpBars` before them, `timeframe`,
            `lastBar` (the date of the newest bar).
    """

    png: bytes
    facts: Mapping[str, Any]


@lru_cache(maxsize=8)
def _recent_candles(raw: bytes, symbol: str, timeframe: str) -> Candles:
    """The charts of one step are drawn from one file; reading it again for each takes a sixth of the time."""
    return parse_candles(raw, symbol=symbol, timeframe=timeframe)


def _candles(raw: bytes, symbol: str, timeframe: str) -> Candles:
    read = _recent_candles if len(raw) <= _KEPT_BYTES else _recent_candles.__wrapped__
    return read(raw, symbol, timeframe)


def _never_stop() -> None:
    """Never stops the work."""


def render(
    raw_candles: bytes,
    payload: Mapping[str, Any],
    *,
    symbol: str,
    timeframe: str,
    check: Callable[[], None] = _never_stop,
) -> RenderedChart:
    """Draw one chart.

    Args:
        raw_candles: An OHLCV JSON file.
        payload: A Chart-IMG request body, as a chart template's `request` holds it.
        symbol: What the candles are about; shown in the legend.
        timeframe: Length of the bars, e.g. `1d`.
        check: Called between the stages; raises to stop the work.

    Raises:
        OhlcvUnavailable: The candles can't be used.
        RenderFailed: The chart can't be drawn as asked.
    """
    options = read_options(payload, symbol=symbol, timeframe=timeframe)
    candles = _candles(raw_candles, symbol, timeframe)
    plan = make_plan(candles, options, check)
    check()
    image = paint(build_draw_list(plan))
    check()
    return RenderedChart(png=encode_png(image), facts=_facts(plan, timeframe))


def _facts(plan: Plan, timeframe: str) -> Mapping[str, Any]:
    return {
        "candles": plan.grid.count,
        "warmUpBars": plan.grid.first,
        "timeframe": timeframe,
        "lastBar": plan.candles.dates[-1].strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
