"""Read candles and draw charts in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_chart_export.charts.local.input.candles import Candles, parse_candles
from worker_chart_export.charts.local.render import render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class InProcessRenderer:
    """Draws charts in this process. Threads may share one.

    Args:
        max_png_bytes: A larger picture is made smaller, at the cost of its exact colours.
    """

    def __init__(self, *, max_png_bytes: int) -> None:
        self._max_png_bytes = max_png_bytes

    def load(
        self, raw: bytes, *, symbol: str, timeframe: str, check: Callable[[], None] = lambda: None
    ) -> Candles:
        """Read a candle file; see `parse_candles`."""
        return parse_candles(raw, symbol=symbol, timeframe=timeframe, check=check)

    def draw(
        self,
        candles: Candles,
        payload: Mapping[str, Any],
        *,
        symbol: str,
        timeframe: str,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[bytes, Mapping[str, Any]]:
        """Return a PNG and how it was made; see `render`."""
        chart = render(
            candles,
            payload,
            symbol=symbol,
            timeframe=timeframe,
            check=check,
            max_png_bytes=self._max_png_bytes,
        )
        return chart.png, chart.facts
