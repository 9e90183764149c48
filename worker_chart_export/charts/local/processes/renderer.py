"""The renderer that draws in other processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.charts.local.processes.pool import RendererPool


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedCandles:
    """Candles as they are sent to renderer processes.

    Attributes:
        data: The candles, pickled.
        count: The number of bars.
    """

    data: bytes
    count: int

    def __len__(self) -> int:
        return self.count


class ProcessRenderer:
    """Draws charts in other processes.

    Args:
        pool: The processes.
        max_png_bytes: As for `InProcessRenderer`.
    """

    def __init__(self, pool: RendererPool, *, max_png_bytes: int) -> None:
        self._pool = pool
        self._max_png_bytes = max_png_bytes

    def load(self, raw: bytes, *, symbol: str, timeframe: str, check: Callable[[], None]) -> PackedCandles:
        """Read a candle file."""
        data, count = self._pool.run("load", check=check, raw=raw, symbol=symbol, timeframe=timeframe)
        return PackedCandles(data=data, count=count)

    def draw(
        self,
        candles: PackedCandles,
        payload: Mapping[str, Any],
        *,
        symbol: str,
        timeframe: str,
        check: Callable[[], None],
    ) -> tuple[bytes, Mapping[str, Any]]:
        """Return the PNG of a request body, and how it was made."""
        png, facts = self._pool.run(
            "draw",
            check=check,
            candles=candles.data,
            payload=payload,
            symbol=symbol,
            timeframe=timeframe,
            max_png_bytes=self._max_png_bytes,
        )
        return png, facts
