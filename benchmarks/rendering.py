"""Milliseconds to draw each reference template on one core, PNG included; and matplotlib beside it."""

from __future__ import annotations

import io
import json
import statistics
import time
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from daemon.demo.stage import sample_templates
from worker_chart_export.charts.local.render import render

if TYPE_CHECKING:
    from collections.abc import Callable

CANDLES = files("worker_chart_export").joinpath("samples/ohlcv/IBM_1d.json")
#: What the worker draws of these candles.
SHOWN = 117


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One template.

    Attributes:
        name: The template's id, or what else draws.
        milliseconds: The median of all rounds.
        kib: The PNG's size.
    """

    name: str
    milliseconds: float
    kib: float


def drawings(rounds: int) -> list[Drawing]:
    """All five templates, drawn again and again in turn."""
    raw = CANDLES.read_bytes()

    def drawing(template: dict[str, Any]) -> Drawing:
        return _timed(
            template["id"], lambda: render(raw, template["request"], symbol="IBM", timeframe="1d").png, rounds
        )

    return [drawing(template) for template in sample_templates()]


def matplotlib_drawing(rounds: int) -> Drawing | None:
    """Candles, two averages and volume by matplotlib at the same size; None where it is not installed."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only this needs it
    except ImportError:
        return None
    bars = json.loads(CANDLES.read_bytes())["data"][-SHOWN:]
    closes = [bar["close"] for bar in bars]
    places = list(range(len(bars)))
    colours = ["#089981" if bar["close"] >= bar["open"] else "#f23645" for bar in bars]

    def draw() -> bytes:
        figure = Figure(figsize=(8, 6), dpi=100)
        price, volume = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        price.vlines(places, [b["low"] for b in bars], [b["high"] for b in bars], colors=colours, linewidth=1)
        bodies = [bar["close"] - bar["open"] for bar in bars]
        price.bar(places, bodies, bottom=[bar["open"] for bar in bars], color=colours, width=0.7)
        for length in (12, 26):
            means = [statistics.fmean(closes[max(0, at - length) : at + 1]) for at in places]
            price.plot(places, means, linewidth=1)
        volume.bar(places, [bar["volume"] for bar in bars], color=colours, width=0.7)
        out = io.BytesIO()
        figure.savefig(out, format="png")
        return out.getvalue()

    return _timed("matplotlib: candles, two averages, volume", draw, rounds)


def _timed(name: str, draw: Callable[[], bytes], rounds: int) -> Drawing:
    size = len(draw())
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        draw()
        times.append(time.perf_counter() - began)
    return Drawing(name=name, milliseconds=1000 * statistics.median(times), kib=size / 1024)
