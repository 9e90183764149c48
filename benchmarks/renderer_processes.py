"""Measure how many charts a second the pool of renderer processes draws."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.processes import cpu_seconds_of
from benchmarks.rendering import CANDLES, SYMBOL, TIMEFRAME
from daemon.cli.demo.resources import sample_templates
from tests.support.process.renderers import renderers_of
from worker_chart_export.charts.local.processes.pool import RendererPool
from worker_chart_export.charts.local.processes.renderer import ProcessRenderer

if TYPE_CHECKING:
    from collections.abc import Callable

#: Threads of the daemon that wait for charts.
THREADS = 8
CHARTS = 200
_MAX_PNG_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRate:
    """What a pool has drawn.

    Attributes:
        processes: The size of the pool.
        charts_per_second: How many charts it drew a second.
        milliseconds: Processor time of a chart in the renderer processes.
        own_milliseconds: Processor time of a chart in the process that waits for them.
    """

    processes: int
    charts_per_second: float
    milliseconds: float
    own_milliseconds: float


def pool_rate(processes: int) -> PoolRate:
    """Draw the reference templates in turn, at 800x600."""
    pool = RendererPool(processes=processes)
    try:
        renderer = ProcessRenderer(pool, max_png_bytes=_MAX_PNG_BYTES)
        candles = renderer.load(CANDLES.read_bytes(), symbol=SYMBOL, timeframe=TIMEFRAME, check=_go_on)
        payloads = [template["request"] for template in sample_templates()]
        draw = partial(renderer.draw, candles, symbol=SYMBOL, timeframe=TIMEFRAME, check=_go_on)
        with ThreadPoolExecutor(THREADS) as threads:

            def draw_many(count: int) -> None:
                for chart in [threads.submit(draw, payloads[n % len(payloads)]) for n in range(count)]:
                    chart.result()

            draw_many(5 * processes)  # this starts all of them
            return _measured(draw_many, processes)
    finally:
        pool.close()


def _measured(draw_many: Callable[[int], None], processes: int) -> PoolRate:
    theirs, own, began = _renderers_seconds(), time.process_time(), time.perf_counter()
    draw_many(CHARTS)
    seconds = time.perf_counter() - began
    return PoolRate(
        processes=processes,
        charts_per_second=CHARTS / seconds,
        milliseconds=1000 * (_renderers_seconds() - theirs) / CHARTS,
        own_milliseconds=1000 * (time.process_time() - own) / CHARTS,
    )


def _renderers_seconds() -> float:
    """Return the processor time of all renderers of this process so far."""
    return sum(map(cpu_seconds_of, renderers_of(os.getpid())))


def _go_on() -> None:
    """Let the drawing go on."""
