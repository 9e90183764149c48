"""Draw a PNG from a candle file and a request body, in stages that can be stopped in between."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.local.drawing.canvas import encode_png, paint
from worker_chart_export.charts.local.drawing.draw_list import build_draw_list
from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.charts.local.input.options import read_options
from worker_chart_export.charts.local.layout.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Candle files up to this size are kept for the step's next chart: reading the file is a sixth of its time.
_MAX_CACHED_BYTES = 2**20
_cached_candles = lru_cache(maxsize=8)(parse_candles)


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


def render(
    raw_candles: bytes,
    payload: Mapping[str, Any],
    *,
    symbol: str,
    timeframe: str,
    check: Callable[[], None] = lambda: None,
) -> RenderedChart:
    """Draw one chart.

    Args:
        raw_candles: An OHLCV JSON file.
        payload: A Chart-IMG request body, i.e. the `request` of a chart template.
        symbol: The symbol of the candles; shown in the legend.
        timeframe: Length of the bars, e.g. `1d`.
        check: Called between the stages; raises to stop the work.

    Raises:
        OhlcvUnavailable: The candles can't be used.
        RenderFailed: The chart can't be drawn as its template demands.
    """
    options = read_options(payload, symbol=symbol, timeframe=timeframe)
    parse = _cached_candles if len(raw_candles) <= _MAX_CACHED_BYTES else parse_candles
    plan = make_plan(parse(raw_candles, symbol=symbol, timeframe=timeframe), options, check)
    check()
    image = paint(build_draw_list(plan))
    check()
    facts = {
        "candles": plan.grid.count,
        "warmUpBars": plan.grid.first,
        "timeframe": timeframe,
        "lastBar": plan.candles.dates[-1].strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return RenderedChart(png=encode_png(image), facts=facts)
