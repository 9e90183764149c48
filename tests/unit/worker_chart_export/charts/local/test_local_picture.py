"""The finished picture is a valid, small, repeatable PNG; and the provider that makes it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import zlib

import pytest
from PIL import Image

from tests.support.charts.local_chart_samples import (
    TEMPLATES,
    bars_from_closes,
    bars_of,
    candles_of,
    plan_of,
    raw_candles,
    request_of,
)
from worker_chart_export.charts.base import ChartRequest
from worker_chart_export.charts.local import gallery
from worker_chart_export.charts.local.drawing.canvas import MAX_PNG_BYTES
from worker_chart_export.charts.local.in_process import InProcessRenderer
from worker_chart_export.charts.local.input.candles import parse_candles
from worker_chart_export.charts.local.layout.number_format import (
    Writer,
    compact,
    fixed,
    price_decimals,
    signed,
)
from worker_chart_export.charts.local.primitives.colors import THEMES
from worker_chart_export.charts.local.primitives.text import glyph
from worker_chart_export.charts.local.provider import LocalProvider
from worker_chart_export.charts.local.render import render
from worker_chart_export.charts.local.studies.study import Numbers
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.concurrency.single_flight import LoadOnce
from worker_chart_export.errors import Interrupted, OhlcvUnavailable, RenderFailed
from worker_chart_export.timing import SystemClock

LIMIT = 200 * 1024
FIELDS = ("date", "open", "high", "low", "close", "volume")


def _draw(template_id="ctpl_price_ma1226_vol_v1", name="IBM_1d", **changes):
    symbol, timeframe = name.split("_")
    payload = request_of(template_id, **changes)
    candles = parse_candles(raw_candles(name), symbol=symbol, timeframe=timeframe)
    return render(candles, payload, symbol=symbol, timeframe=timeframe)


def _provider():
    return LocalProvider(InProcessRenderer(max_png_bytes=MAX_PNG_BYTES))


def _pixels(png):
    image = Image.open(io.BytesIO(png))
    image.load()
    return image


def test_an_arrow_has_smooth_edges():
    """Its edges have shades between its colour and the background."""
    ends = {
        "startDatetime": "2012-12-20T00:00:00Z",
        "startPrice": 191.0,
        "endDatetime": "2013-02-08T00:00:00Z",
        "endPrice": 204.0,
    }
    colors = []
    for color in ("#0000fe", "#0000fe00"):
        arrow = {"name": "Arrow Marker", "input": ends, "override": {"arrowColor": color}}
        payload = {"theme": "light", "drawings": [arrow]}
        candles = parse_candles(raw_candles(), symbol="IBM", timeframe="1d")
        picture = _pixels(render(candles, payload, symbol="IBM", timeframe="1d").png)
        colors.append({color for _, color in picture.getcolors(1 << 20)})
    assert len(colors[0] - colors[1]) > 50


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("template_id", TEMPLATES)
def test_a_reference_chart_is_a_valid_png_of_its_size_under_200_kib(template_id, theme):
    """A reference chart is a complete PNG of its size with correct checksums, under 200 KiB."""
    png = _draw(template_id, theme=theme).png
    assert len(png) <= LIMIT
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    place, kinds = 8, []
    while place < len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        body = png[place + 4 : place + 8 + length]
        assert zlib.crc32(body) == int.from_bytes(png[place + 8 + length : place + 12 + length], "big")
        kinds.append(body[:4])
        place += 12 + length
    assert kinds == [b"IHDR", b"iTXt", b"IDAT", b"IEND"]
    image = _pixels(png)
    assert (image.size, image.mode) == ((800, 600), "RGB")


def test_a_large_chart_stays_under_the_readers_limit():
    """A large chart is under the 256 KiB that readers accept."""
    assert len(_draw("ctpl_price_ma1226_bb_macd1226_v1", "GOOG_1d", width=1920, height=1080).png) <= 262_144


def test_the_same_chart_has_the_same_bytes_on_any_thread():
    """A chart has the same bytes on any thread, whatever other threads draw."""
    expected = {template_id: _draw(template_id).png for template_id in TEMPLATES}
    found = []

    def work():
        found.extend((template_id, _draw(template_id).png) for template_id in TEMPLATES)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 * len(TEMPLATES)
    assert all(png == expected[template_id] for template_id, png in found)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_candles_have_their_exact_colour_and_are_at_their_prices(theme):
    """Candles have their exact colours and are at their prices, on whole pixels."""
    plan = plan_of(bars_of(), {"theme": theme})
    image = _pixels(_draw(theme=theme, studies=[], override={"showPriceLine": False}).png)
    scale, grid, visible = plan.panes[0].scale, plan.grid, plan.visible
    for index, x in enumerate(grid.centers):
        rising = visible.close[index] >= visible.open[index]
        color = (THEMES[theme].rising if rising else THEMES[theme].falling)[:3]
        middle = round(scale.row(float(visible.open[index] + visible.close[index]) / 2))
        assert image.getpixel((x, middle)) == color
        assert image.getpixel((x, round(scale.row(float(visible.high[index]))))) == color
        candle = {THEMES[theme].rising[:3], THEMES[theme].falling[:3]}
        above = round(scale.row(float(visible.high[index]))) - 1
        below = round(scale.row(float(visible.low[index]))) + 1
        assert image.getpixel((x, above)) not in candle
        assert image.getpixel((x, below)) not in candle
        ends = [round(scale.row(float(price[index]))) for price in (visible.open, visible.close)]
        assert image.getpixel((x - 2, max(ends))) == image.getpixel((x + 2, min(ends))) == color
        assert image.getpixel((x - 2, max(ends) + 1)) not in candle
        assert image.getpixel((x + 3, middle)) not in candle


def test_the_dark_ground_is_a_gradient_and_the_light_one_white():
    """The dark background is a gradient from #181c27 to #131722 in each pane, the light one white."""
    dark, light = _pixels(_draw(studies=[]).png), _pixels(_draw(studies=[], theme="light").png)
    assert (dark.getpixel((1, 0)), dark.getpixel((1, 573))) == ((24, 28, 39), (19, 23, 34))
    assert (light.getpixel((1, 0)), light.getpixel((1, 573))) == ((255, 255, 255), (255, 255, 255))


@pytest.mark.parametrize("style", ["candle", "hollowCandle", "bar", "line", "area"])
def test_every_style_makes_another_picture(style):
    """Every style makes a different picture."""
    others = {"candle", "hollowCandle", "bar", "line", "area"} - {style}
    assert all(_draw(style=style).png != _draw(style=other).png for other in others)


def test_smooth_lines_do_not_leave_their_pane():
    """A line beyond the price range is cut at the pane's edge."""
    override = {"priceRange": {"from": 199, "to": 200}}
    studies = [{"name": "Moving Average Double"}, {"name": "Relative Strength Index"}]
    plan = plan_of(bars_of(), {"theme": "dark", "studies": studies, "override": override})
    image = _pixels(_draw(studies=studies, override=override).png)
    assert _orange(image.crop(plan.panes[0].box)) > 20
    assert _orange(image.crop(plan.panes[1].box)) == 0


def _orange(image):
    colors = image.getcolors(maxcolors=1 << 20)
    return sum(count for count, (red, _, blue) in colors if red > 120 and blue < 60)


def _request_for(read, payload=None, scope=None):
    scope = scope or CancelScope(seconds=60, clock=SystemClock())
    return ChartRequest(
        template_id="t",
        symbol="IBM",
        timeframe="1d",
        payload={"theme": "dark"} if payload is None else payload,
        candles=LoadOnce(read),
        scope=scope,
        call_scope=scope,
    )


def test_the_provider_draws_and_has_metadata():
    """The image's provider is `local`, and its metadata can be stored as JSON."""
    image = _provider().chart(_request_for(raw_candles))
    assert image.provider == "local"
    assert _pixels(image.png).size == (800, 600)
    assert json.loads(json.dumps(image.meta)) == {
        "candles": 117,
        "warmUpBars": 283,
        "timeframe": "1d",
        "lastBar": {field: bars_of()[-1][field] for field in FIELDS},
        "studies": [],
    }


def test_the_provider_passes_on_that_there_are_no_candles():
    """An error of the read is this request's error."""

    def none():
        raise OhlcvUnavailable("there are none")

    with pytest.raises(OhlcvUnavailable, match="there are none"):
        _provider().chart(_request_for(none))


def test_the_provider_stops_when_the_step_is_stopped():
    """A stop during the read of the candles prevents the drawing."""
    scope = CancelScope(seconds=60, clock=SystemClock())

    def read():
        scope.stop(Interrupted("stop requested"))
        return raw_candles()

    with pytest.raises(Interrupted):
        _provider().chart(_request_for(read, scope=scope))


def test_the_candles_of_a_step_are_parsed_once():
    """Two charts of one step are drawn from the same candles, which are read and parsed once."""
    reads = []

    def read():
        reads.append(None)
        return raw_candles()

    request = _request_for(read)
    first, second = _provider().chart(request), _provider().chart(request)
    assert (first.png, len(reads)) == (second.png, 1)
    assert request.candles.load(len) is request.candles.load(len)


def test_a_bad_template_is_refused_by_the_provider():
    """A bad template fails its request with RENDER_FAILED."""
    with pytest.raises(RenderFailed):
        _provider().chart(_request_for(raw_candles, {"studies": [{"name": "Tea Leaves"}]}))


def test_the_provider_leaves_out_keys_that_a_step_only_warns_about():
    """Undocumented keys of the request, its studies and drawings change no chart; the template warns."""
    arrow = {"name": "Vertical Line", "input": {"datetime": "2013-01-02T00:00:00.000Z"}}
    plain = {"studies": [{"name": "Volume"}], "drawings": [arrow]}
    odd = {"them": "light", "studies": [{"name": "Volume", "inputs": {}}], "drawings": [arrow | {"x": 1}]}
    charts = [_provider().chart(_request_for(raw_candles, payload)) for payload in (plain, odd)]
    assert charts[0].png == charts[1].png


def test_drawing_libraries_are_loaded_with_the_provider():
    """The drawing libraries are imported only when the provider is built."""
    script = (
        "import sys, worker_chart_export.charts.local, worker_chart_export.charts.base;"
        "sys.exit(bool({'numpy', 'PIL', 'aggdraw'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def test_the_gallery_draws_every_template(tmp_path, capsys):
    """The gallery has one picture per template, named by its id."""
    gallery.main([str(tmp_path)])
    assert {path.stem for path in tmp_path.iterdir()} == set(TEMPLATES)
    assert len(capsys.readouterr().out.splitlines()) == len(TEMPLATES)
    assert (tmp_path / "ctpl_price_ma1226_vol_v1.png").read_bytes() == _draw().png


@pytest.mark.parametrize(
    ("closes", "decimals"),
    [
        ([202.91, 200.1], 2),
        ([1.0845, 1.08451], 5),
        ([0.00001234, 0.00001235], 8),
        ([97123.5], 2),
        ([1.23e-8, 1.24e-8], 10),
        ([1 / 3], 6),
    ],
)
def test_prices_have_the_decimals_they_need(closes, decimals):
    """Prices have at least two decimals and no noise of binary fractions."""
    assert price_decimals(candles_of(bars_from_closes(closes)).close) == decimals


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3308300, "3.31M"),
        (999_999, "1.00M"),
        (-1.5e9, "\N{MINUS SIGN}1.50B"),
        (850.5, "850.5"),
        (12, "12"),
        (0, "0"),
        (2e12, "2.00T"),
        (float("nan"), "n/a"),
    ],
)
def test_volumes_are_written_short(value, text):
    """Volumes are abbreviated as traders write them."""
    assert compact(value) == text


def test_prices_are_written_with_groups_and_a_real_minus():
    """Prices have groups of digits, a real minus sign, and no negative zero."""
    assert fixed(1234567.891, 2) == "1,234,567.89"
    assert fixed(-0.001, 2) == "0.00"
    assert fixed(-1.5, 2) == "\N{MINUS SIGN}1.50"
    assert (signed(2, 1), signed(-2, 1)) == ("+2.0", "\N{MINUS SIGN}2.0")


def test_ticks_of_short_numbers_differ():
    """Ticks that are closer than two decimals get the decimals that make them differ."""
    writer = Writer(numbers=Numbers.COMPACT)
    assert [writer.tick(value, 5e5) for value in (1.2345e9, 1.2350e9)] == ["1.2345B", "1.235B"]
    assert writer.tick(2e8, 1e8) == "200M"


@pytest.mark.parametrize("character", ["漢", "\N{PARTY POPPER}", "א"])
@pytest.mark.parametrize("size", [9, 30])
def test_a_character_that_the_font_lacks_is_a_box(character, size):
    """It is seen, and does not run into the next one."""
    shape = glyph(character, size)
    assert shape.pixels[0].all()
    assert shape.advance > shape.pixels.shape[1]


@pytest.mark.parametrize("character", [" ", "\N{ZERO WIDTH JOINER}", "\N{VARIATION SELECTOR-16}", "\n"])
def test_a_character_without_ink_is_no_box(character):
    """Spaces and invisible characters have no pixels."""
    assert not glyph(character, 12).pixels.any()
