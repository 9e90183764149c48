"""Draw a PNG from candles and a request body, in stages that can be stopped in between."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from worker_chart_export.charts.local.drawing.canvas import encode_png, paint
from worker_chart_export.charts.local.drawing.draw_list import build_draw_list
from worker_chart_export.charts.local.input.options import read_options
from worker_chart_export.charts.local.layout.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.charts.local.input.candles import Candles


_JPEG_QUALITY = 90


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
    candles: Candles,
    payload: Mapping[str, Any],
    *,
    symbol: str,
    timeframe: str,
    check: Callable[[], None] = lambda: None,
) -> RenderedChart:
    """Draw one chart.

    Args:
        candles: The bars, see `parse_candles`.
        payload: A Chart-IMG request body, i.e. the `request` of a chart template.
        symbol: The symbol of the candles; shown in the legend.
        timeframe: Length of the bars, e.g. `1d`.
        check: Called between the stages; raises to stop the work.

    Raises:
        RenderFailed: The chart can't be drawn as its template demands.
    """
    options = read_options(payload, symbol=symbol, timeframe=timeframe)
    plan = make_plan(candles, options, check)
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


def as_jpeg(png: bytes) -> bytes:
    """Return a chart as a JPEG file."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
