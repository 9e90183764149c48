"""Draw every chart template of a folder from one candle file, e.g. for the documentation.

To run it: `python -m worker_chart_export.charts.local.gallery docs/charts`
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.charts.local.render import render

if TYPE_CHECKING:
    from collections.abc import Sequence

_SAMPLES = Path(__file__).parents[2] / "data" / "samples"


def draw_gallery(templates: Path, candles: Path, output: Path) -> list[Path]:
    """Draw each template as `<id>.png`.

    Args:
        templates: A folder of chart templates (`*.json`).
        candles: An OHLCV JSON file with metadata, which names the symbol and the timeframe.
        output: The folder for the pictures; created if missing.

    Returns:
        The pictures, in order of the templates' file names.

    Raises:
        RequestError: A template or the candle file can't be drawn.
    """
    raw = candles.read_bytes()
    metadata = json.loads(raw)["metadata"]
    symbol, timeframe = metadata["symbol"], metadata["timeframe"]
    bars = parse_candles(raw, symbol=symbol, timeframe=timeframe)
    output.mkdir(parents=True, exist_ok=True)
    pictures = []
    for path in sorted(templates.glob("*.json")):
        template = json.loads(path.read_bytes())
        drawn = render(bars, template["request"], symbol=symbol, timeframe=timeframe)
        picture = output / f"{template['id']}.png"
        picture.write_bytes(drawn.png)
        pictures.append(picture)
    return pictures


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and draw the charts."""
    parser = argparse.ArgumentParser(description="Draw chart templates from a candle file.")
    parser.add_argument("output", type=Path, help="folder for the pictures")
    parser.add_argument("--templates", type=Path, default=_SAMPLES / "templates")
    parser.add_argument("--candles", type=Path, default=_SAMPLES / "ohlcv" / "IBM_1d.json")
    chosen = parser.parse_args(arguments)
    for picture in draw_gallery(chosen.templates, chosen.candles, chosen.output):
        sys.stdout.write(f"{picture}\n")


if __name__ == "__main__":
    main()
