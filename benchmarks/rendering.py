"""Measure the processor time to draw each reference template, and the same by matplotlib."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.matplotlib_chart import MatplotlibChart
from daemon.cli.demo.resources import sample_templates
from worker_chart_export.charts.local.input.candles import Candles, parse_candles
from worker_chart_export.charts.local.render import render
from worker_chart_export.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CANDLES = files("worker_chart_export").joinpath("data/samples/ohlcv/IBM_1d.json")
DRAWN_BY_MATPLOTLIB = "ctpl_price_ma1226_vol_v1"
SYMBOL, TIMEFRAME = "IBM", "1d"
MANY_BARS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One chart that was drawn several times.

    Attributes:
        name: The id of the template, or the other renderer.
        kind: What is drawn: `800x600`, `1920x1080`, `20,000 bars` or `matplotlib`.
        milliseconds: The processor time of each round.
        kib: The size of the PNG.
    """

    name: str
    kind: str
    milliseconds: tuple[float, ...]
    kib: float


def drawings(rounds: int) -> list[Drawing]:
    """Draw all cases and the chart of matplotlib in each round, on one core, as a renderer process does.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    keep_freed_memory()
    painters = _painters()
    with _one_core():
        sizes = {case: len(draw()) for case, draw in painters.items()}  # this also warms up
        times = [{case: _milliseconds(draw) for case, draw in painters.items()} for _ in range(rounds)]
    return [
        Drawing(
            name=case[0], kind=case[1], milliseconds=tuple(taken[case] for taken in times), kib=size / 1024
        )
        for case, size in sizes.items()
    ]


def _painters() -> dict[tuple[str, str], Callable[[], bytes]]:
    raw = CANDLES.read_bytes()
    candles = parse_candles(raw, symbol=SYMBOL, timeframe=TIMEFRAME)
    many = parse_candles(_hourly_bars(MANY_BARS), symbol=SYMBOL, timeframe="1h")
    painters: dict[tuple[str, str], Callable[[], bytes]] = {}
    for template in sample_templates():
        name, request = template["id"], template["request"]
        large = {**request, "width": 1920, "height": 1080}
        painters[name, "800x600"] = partial(_render, candles, request, TIMEFRAME)
        painters[name, "1920x1080"] = partial(_render, candles, large, TIMEFRAME)
        painters[name, f"{MANY_BARS:,} bars"] = partial(_render, many, request, "1h")
    painters[DRAWN_BY_MATPLOTLIB, "matplotlib"] = MatplotlibChart(raw)
    return painters


def _hourly_bars(count: int) -> bytes:
    """Return a candle file with a random walk."""
    first = datetime(2020, 1, 1, tzinfo=UTC)
    closes = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.002, count)))
    bars = [
        {
            "date": (first + timedelta(hours=hour)).isoformat(),
            "open": close * 0.999,
            "high": close * 1.01,
            "low": close * 0.99,
            "close": close,
            "volume": 1000 + hour,
        }
        for hour, close in enumerate(closes.tolist())
    ]
    return json.dumps(bars).encode()


def _render(candles: Candles, request: Mapping[str, Any], timeframe: str) -> bytes:
    return render(candles, request, symbol=SYMBOL, timeframe=timeframe).png


def _milliseconds(draw: Callable[[], bytes]) -> float:
    """Return the processor time: other processes hardly change it."""
    started = time.process_time()
    draw()
    return 1000 * (time.process_time() - started)


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread on one of the cores that it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
