"""Candles, templates, and functions that make plans and draw lists for the local renderer's tests."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import worker_chart_export
from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.charts.local.input.options import read_options
from worker_chart_export.charts.local.layout.plan import make_plan

SAMPLES = Path(worker_chart_export.__file__).parent / "data" / "samples"
CANDLE_FILES = sorted(path.stem for path in (SAMPLES / "ohlcv").glob("*.json"))
TEMPLATES = {
    path.stem: json.loads(path.read_bytes()) for path in sorted((SAMPLES / "templates").glob("*.json"))
}


def raw_candles(name="IBM_1d"):
    """Return the bytes of a sample candle file."""
    return (SAMPLES / "ohlcv" / f"{name}.json").read_bytes()


def bars_of(name="IBM_1d"):
    """Return the bars of a sample file."""
    return json.loads(raw_candles(name))["data"]


def column(bars, field):
    """Return one field of all bars."""
    return [float(bar[field]) for bar in bars]


def request_of(template_id, **changes):
    """Return the request of a reference template, with changes."""
    return TEMPLATES[template_id]["request"] | changes


def bar(number, prices, *, volume=1000.0, step=timedelta(days=1), start=datetime(2024, 1, 1, tzinfo=UTC)):
    """Return one bar; `prices` are open, high, low, close."""
    date = (start + number * step).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "date": date,
        **dict(zip(("open", "high", "low", "close"), prices, strict=True)),
        "volume": volume,
    }


def bars_from_closes(closes, **more):
    """Return bars that open at the previous close and extend one percent beyond."""
    rows = []
    for number, close in enumerate(closes):
        opening = closes[number - 1] if number else close
        high, low = max(opening, close) * 1.01, min(opening, close) / 1.01
        rows.append(bar(number, (opening, high, low, close), **more))
    return rows


def candles_of(bars, timeframe="1d"):
    """Return bars as validated candles."""
    return parse_candles(json.dumps(bars).encode(), symbol="IBM", timeframe=timeframe)


def plan_of(bars, payload, *, symbol="IBM", timeframe="1d"):
    """Return the plan of bars and a request body."""
    options = read_options(payload, symbol=symbol, timeframe=timeframe)
    return make_plan(candles_of(bars, timeframe), options, lambda: None)


def plots_of(plan):
    """Return every plot of a plan by study title and plot key, as lists with None for a gap."""
    studies = [study for pane in plan.panes for study in pane.studies]
    studies += [study for study, _ in plan.floors]
    return {
        (study.title, plot.key): [None if math.isnan(value) else value for value in plot.values.tolist()]
        for study in studies
        for plot in study.plots
    }
