"""Draw the contact sheets of `docs/charts`: every study, style, scale and drawing.

`python -m docs.chart_sheets docs/charts` draws them again. A sheet holds many small charts of the sample
candles, so that all of them can be looked at.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from worker_chart_export.charts.catalogue import catalogue
from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.charts.local.render import render

if TYPE_CHECKING:
    from collections.abc import Iterator

_CANDLES = Path(__file__).parents[1] / "worker_chart_export/data/samples/ohlcv/IBM_1d.json"
_WIDTH, _HEIGHT, _COLUMNS = 480, 340, 4
_STUDIES_A_SHEET = 24
_SPAN = {
    "startDatetime": "2012-12-20T00:00:00Z",
    "startPrice": 191.0,
    "endDatetime": "2013-02-08T00:00:00Z",
    "endPrice": 204.0,
}
_SPOT = {"datetime": "2013-01-10T00:00:00Z", "price": 192.0}
#: Drawings with the inputs and overrides that show most of them.
_DRAWINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Order Line": ({"text": "BUY ORDER #1", "quantity": "0.25", "price": 198.0}, {}),
    "Trend Line": (_SPAN | {"text": "Trend"}, {"showLabel": True, "extendRight": True}),
    "Horizontal Line": ({"price": 197.0, "text": "Support"}, {"lineStyle": 2}),
    "Vertical Line": ({"datetime": _SPOT["datetime"], "text": "Results"}, {}),
    "Long Position": (
        {
            "startDatetime": _SPAN["startDatetime"],
            "endDatetime": _SPAN["endDatetime"],
            "entryPrice": 194.0,
            "targetPrice": 204.0,
            "stopPrice": 190.0,
        },
        {"showStats": True},
    ),
    "Short Position": (
        {
            "startDatetime": _SPAN["startDatetime"],
            "endDatetime": _SPAN["endDatetime"],
            "entryPrice": 200.0,
            "targetPrice": 191.0,
            "stopPrice": 205.0,
        },
        {"showStats": True, "showCompact": True},
    ),
    "Fib Retracement": (_SPAN, {}),
    "Date Range": (_SPAN, {}),
    "Date Price Range": (_SPAN, {}),
    "Rectangle": (_SPAN | {"text": "ZONE"}, {"showLabel": True, "horzLabelAlign": "center"}),
    "Arrow Marker": (_SPAN | {"text": "Up"}, {}),
    "Arrow Mark Up": (_SPOT | {"text": "Buy"}, {}),
    "Arrow Mark Down": (_SPOT | {"text": "Sell", "price": 198.0}, {}),
    "Text": (_SPOT | {"text": "Two lines\nof text"}, {"showBorder": True, "fillBackground": True}),
    "Callout": (_SPAN | {"text": "Look here", "startPrice": 192.0}, {"fontBold": True}),
}
_SCALES: list[dict[str, Any]] = [
    *({"scale": scale} for scale in ("regular", "percent", "indexedTo100", "logarithmic")),
    {"override": {"showInvertScale": True}},
    {"override": {"showInvertScaleStudies": True}},
    {"override": {"showSymbolWatermark": True, "showSymbolLabelsAction": True}},
    {"override": {"showMainPane": False, "showStudyPlotNamesAction": True}},
]


def sheets() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the name of each sheet, and the request bodies of its charts."""
    table = catalogue()
    studies = [{"theme": "dark", "studies": [{"name": name}]} for name in table.studies]
    for number, first in enumerate(range(0, len(studies), _STUDIES_A_SHEET), 1):
        yield f"studies-{number}", studies[first : first + _STUDIES_A_SHEET]
    yield "styles", [{"style": style} for style in table.styles]
    yield "scales", [{**body, "studies": [{"name": "MACD"}]} for body in _SCALES]
    for theme in ("dark", "light"):
        yield (
            f"drawings-{theme}",
            [
                {"theme": theme, "drawings": [{"name": name, "input": inputs, "override": override}]}
                for name, (inputs, override) in _DRAWINGS.items()
            ],
        )


def draw_sheet(bodies: list[dict[str, Any]]) -> Image.Image:
    """Draw the charts of a sheet in rows of four."""
    bars = parse_candles(_CANDLES.read_bytes(), symbol="IBM", timeframe="1d")
    rows = -(-len(bodies) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _WIDTH, rows * _HEIGHT), "#888888")
    for place, body in enumerate(bodies):
        size = {"width": _WIDTH, "height": _HEIGHT}
        png = render(bars, {**body, **size}, symbol="IBM", timeframe="1d").png
        row, column = divmod(place, _COLUMNS)
        sheet.paste(Image.open(io.BytesIO(png)), (column * _WIDTH, row * _HEIGHT))
    return sheet


def main() -> None:
    """Draw all sheets into the folder that the command line names."""
    folder = Path(sys.argv[1])
    for name, bodies in sheets():
        picture = draw_sheet(bodies).quantize(128, dither=Image.Dither.NONE)
        picture.save(folder / f"{name}.png", optimize=True)
        sys.stdout.write(f"{folder / name}.png\n")


if __name__ == "__main__":
    main()
