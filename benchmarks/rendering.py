"""Measure the milliseconds to draw each reference template on one core, and the same by matplotlib."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from benchmarks.matplotlib_chart import MatplotlibChart
from daemon.cli.demo.resources import sample_templates
from worker_chart_export.charts.local.input.candles import Candles, parse_candles
from worker_chart_export.charts.local.render import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CANDLES = files("worker_chart_export").joinpath("data/samples/ohlcv/IBM_1d.json")
DRAWN_BY_MATPLOTLIB = "ctpl_price_ma1226_vol_v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One chart that was drawn several times.

    Attributes:
        name: The id of the template, or the other renderer.
        milliseconds: The time of each round.
        kib: The size of the PNG.
    """

    name: str
    milliseconds: tuple[float, ...]
    kib: float


def drawings(rounds: int) -> list[Drawing]:
    """Draw all five templates and the chart of matplotlib in each round, on one core.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    raw = CANDLES.read_bytes()
    candles = parse_candles(raw, symbol="IBM", timeframe="1d")
    painters: dict[str, Callable[[], bytes]] = {
        template["id"]: partial(_render, candles, template["request"]) for template in sample_templates()
    }
    painters[f"matplotlib: the chart of {DRAWN_BY_MATPLOTLIB}"] = MatplotlibChart(raw)
    with _one_core():
        sizes = {name: len(draw()) for name, draw in painters.items()}  # this also warms up
        times = [{name: _milliseconds(draw) for name, draw in painters.items()} for _ in range(rounds)]
    return [
        Drawing(name=name, milliseconds=tuple(taken[name] for taken in times), kib=size / 1024)
        for name, size in sizes.items()
    ]


def _render(candles: Candles, request: Mapping[str, Any]) -> bytes:
    return render(candles, request, symbol="IBM", timeframe="1d").png


def _milliseconds(draw: Callable[[], bytes]) -> float:
    started = time.perf_counter()
    draw()
    return 1000 * (time.perf_counter() - started)


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread on one of the cores that it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
