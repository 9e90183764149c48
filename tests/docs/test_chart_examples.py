"""The examples of the page about charts are what the renderer makes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.charts.local_chart_samples import bars_of, plan_of
from worker_chart_export.charts.local.chart_values import chart_values, last_values
from worker_chart_export.charts.local.input.candles import parse_candles

PAGE = Path(__file__).parents[2].joinpath("docs/charts.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


@pytest.fixture
def plan():
    """Return the chart of the examples: the newest two bars of IBM."""
    body = {
        "range": {"from": "2013-02-28", "to": "2013-03-01"},
        "studies": [{"name": "Average True Range"}],
    }
    return plan_of(bars_of(), body)


def test_the_numbers_are_those_of_the_chart(plan):
    """The example of `--values` and that of the newest values."""
    (whole,) = [example for example in EXAMPLES if "bars" in example]
    (last,) = [example for example in EXAMPLES if "lastBar" in example]
    assert whole == chart_values(plan, timeframe="1d")
    assert last == last_values(plan)


def test_the_candle_file_is_read():
    """The example of a candle file has the documented form."""
    (document,) = [example for example in EXAMPLES if "data" in example]
    candles = parse_candles(json.dumps(document).encode(), symbol="IBM", timeframe="1d")
    assert (len(candles), candles.notes, candles.from_the_start) == (1, {}, True)
