"""The size of PNG files: a plan that keeps them under the readers' limit without slow attempts."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from tests.support.charts.local_chart_samples import plan_of, raw_candles, request_of
from worker_chart_export.charts.base import check_png
from worker_chart_export.charts.catalogue import catalogue
from worker_chart_export.charts.local.drawing.canvas import MAX_PNG_BYTES, encode_png, paint
from worker_chart_export.charts.local.drawing.draw_list import build_draw_list


def _noise(width, height):
    """A picture that no level of deflate makes smaller."""
    colors = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(colors)


def _chart(width, height):
    """A picture of a chart with many colours."""
    bars = json.loads(raw_candles())["data"]
    payload = request_of("ctpl_price_ma1226_bb_macd1226_v1", width=width, height=height)
    return paint(build_draw_list(plan_of(bars, payload)))


def _read(png):
    image = Image.open(io.BytesIO(png))
    image.load()
    return image


def test_a_picture_within_the_limit_keeps_its_colours():
    """It is encoded once, without a palette."""
    picture = _chart(800, 600)
    assert _read(encode_png(picture)).tobytes() == picture.tobytes()


def test_a_picture_over_the_limit_gets_a_palette():
    """Its colours stay close to its own."""
    picture = _chart(1920, 1080)
    exact = encode_png(picture, max_bytes=1 << 24)
    png = encode_png(picture, max_bytes=len(exact) * 2 // 3)
    assert len(png) < len(exact) / 2
    reduced = _read(png)
    assert (reduced.mode, reduced.size) == ("P", picture.size)
    differences = np.abs(np.asarray(reduced.convert("RGB"), int) - np.asarray(picture, int))
    assert differences.mean() < 2
    assert np.percentile(differences, 99) <= 16


_OVERLAYS = [name for name, entry in catalogue().studies.items() if not entry.own_pane]


@pytest.mark.parametrize("names", [list(catalogue().studies)[:50], _OVERLAYS])
def test_a_picture_too_large_for_256_colours_gets_fewer(names):
    """Fifty panes, or all studies over the price, on the largest picture stay within the readers' limit."""
    bars = json.loads(raw_candles())["data"]
    studies = [{"name": name} for name in names]
    payload = {"theme": "dark", "width": 2048, "height": 1920, "studies": studies}
    png = encode_png(paint(build_draw_list(plan_of(bars, payload))))
    assert len(png) <= MAX_PNG_BYTES
    assert _read(png).mode == "P"


@pytest.mark.parametrize("width", [300, 301])
def test_a_palette_of_few_colours_keeps_each_pixel_in_its_place(width):
    """Two pixels share a byte; the last one of an odd row is alone."""
    picture = _noise(width, 200)
    reduced = np.asarray(_read(encode_png(picture, max_bytes=1000)).convert("RGB"), int)
    assert len(np.unique(reduced.reshape(-1, 3), axis=0)) <= 12
    for channel in range(3):
        same = np.corrcoef(reduced[:, :, channel].ravel(), np.asarray(picture)[:, :, channel].ravel())[0, 1]
        assert same > 0.5


def test_the_same_picture_has_the_same_bytes_with_a_palette():
    """As without one."""
    picture = _noise(300, 200)
    first, second = (encode_png(picture, max_bytes=1000) for _ in range(2))
    assert first == second


def test_a_picture_that_can_not_be_made_small_stays_whole():
    """The check of every picture then refuses it."""
    picture = _noise(300, 200)
    png = encode_png(picture, max_bytes=1000)
    assert len(png) > 1000
    assert _read(png).size == (300, 200)
    assert check_png(png, width=300, height=200, max_bytes=len(png)) == png


def test_a_picture_over_the_limit_takes_at_most_eight_times_as_long():
    """No step of the plan is repeated, and none takes much longer than the first."""
    picture = _chart(1920, 1080)
    exact, seconds = len(encode_png(picture, max_bytes=1 << 24)), []
    for limit in (exact, exact - 1, 1000):
        began = time.process_time()
        for _ in range(3):
            encode_png(picture, max_bytes=limit)
        seconds.append(time.process_time() - began)
    assert max(seconds) < 8 * seconds[0]
