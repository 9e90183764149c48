"""Draw a PNG from candles and a request body, in stages that can be stopped in between."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from worker_chart_export.charts.local.chart_values import chart_values, encode, last_values
from worker_chart_export.charts.local.drawing.canvas import MAX_PNG_BYTES, encode_png, paint
from worker_chart_export.charts.local.drawing.draw_list import build_draw_list
from worker_chart_export.charts.local.drawing.png_text import with_text
from worker_chart_export.charts.local.input.options import read_options
from worker_chart_export.charts.local.layout.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.charts.local.input.candles import Candles

#: The keyword of the text in the PNG with the newest values.
VALUES_KEYWORD = "chart-values"
#: A chunk with a text takes at most so many bytes more than its text.
_CHUNK_BYTES = 64
_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedChart:
    """A chart drawn here.

    Attributes:
        png: The whole PNG file. It holds the newest values as the text `chart-values`.
        facts: How it was made, JSON-serialisable: `candles` shown, `warmUpBars` before them, `timeframe`, the
            newest values, see `last_values`, and `candleNotes`, see `Candles.notes`, if there are any.
        values: The numbers of all bars shown, see `chart_values`; None if they were not asked for.
    """

    png: bytes
    facts: Mapping[str, Any]
    values: Mapping[str, Any] | None = None


def render(
    candles: Candles,
    payload: Mapping[str, Any],
    *,
    symbol: str,
    timeframe: str,
    check: Callable[[], None] = lambda: None,
    with_values: bool = False,
    max_png_bytes: int = MAX_PNG_BYTES,
) -> RenderedChart:
    """Draw one chart.

    Args:
        candles: The bars, see `parse_candles`.
        payload: A Chart-IMG request body, i.e. the `request` of a chart template.
        symbol: The symbol of the candles; shown in the legend.
        timeframe: Length of the bars, e.g. `1d`.
        check: Called between the stages; raises to stop the work.
        with_values: Whether to return the numbers of all bars.
        max_png_bytes: A larger picture is made smaller, at the cost of its exact colours.

    Raises:
        RenderFailed: The chart can't be drawn as its template demands.
    """
    options = read_options(payload, symbol=symbol, timeframe=timeframe)
    plan = make_plan(candles, options, check)
    check()
    image = paint(build_draw_list(plan))
    check()
    last = last_values(plan)
    facts = {"candles": plan.grid.count, "warmUpBars": plan.grid.first, "timeframe": timeframe, **last}
    if candles.notes:
        facts["candleNotes"] = dict(candles.notes)
    text = encode(last)
    png = encode_png(image, max_bytes=max_png_bytes - len(text) - _CHUNK_BYTES)
    return RenderedChart(
        png=with_text(png, VALUES_KEYWORD, text.decode()),
        facts=facts,
        values=chart_values(plan, timeframe=timeframe) if with_values else None,
    )


def as_jpeg(png: bytes) -> bytes:
    """Return a chart as a JPEG file."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
