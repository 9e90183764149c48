"""With too little history a study is not drawn instead of being drawn wrong."""

from __future__ import annotations

import pytest

from tests.support.charts.local_chart_samples import bars_of, plan_of, plots_of, request_of

#: Study title and plot of a template, and how far its first drawn value may be from the full history's.
RECURSIVE = [
    ("ctpl_price_rsi14_stochrsi_v1", ("RSI 14 SMA 14", "Plot"), 1.0),
    ("ctpl_price_ma1226_bb_macd1226_v1", ("MACD 12 26 9 close", "MACD"), 0.15),
    ("ctpl_price_ma1226_bb_macd1226_v1", ("MACD 12 26 9 close", "Signal"), 0.05),
    ("ctpl_price_psar_adi_v1", ("ADX 14 14", "ADX"), 0.2),
]


def _drawn(bars, template_id, plot):
    return plots_of(plan_of(bars, request_of(template_id)))[plot]


@pytest.mark.parametrize(("template_id", "plot", "tolerance"), RECURSIVE)
@pytest.mark.parametrize("cut", [60, 130, 200])
def test_values_hardly_depend_on_the_start_of_the_history(template_id, plot, tolerance, cut):
    """A value drawn from a short history equals that of the long history within a pixel."""
    bars = bars_of()
    long, short = _drawn(bars, template_id, plot), _drawn(bars[cut:], template_id, plot)
    pairs = [(a, b) for a, b in zip(long[cut:], short, strict=True) if b is not None]
    assert len(pairs) > 20
    assert max(abs(a - b) for a, b in pairs) < tolerance


@pytest.mark.parametrize(("template_id", "plot"), [case[:2] for case in RECURSIVE])
def test_two_hundred_bars_of_history_are_always_enough(template_id, plot):
    """Every study of the reference templates draws bar 200."""
    assert _drawn(bars_of(), template_id, plot)[200] is not None


@pytest.mark.parametrize("cut", range(20, 320, 23))
def test_the_stop_is_drawn_once_its_beginning_no_longer_matters(cut):
    """A parabolic stop from a short history equals that of the long history, except in a few bars."""
    bars = bars_of()
    plot = ("SAR 0.02 0.02 0.2", "Plot")
    long = _drawn(bars, "ctpl_price_psar_adi_v1", plot)
    short = _drawn(bars[cut:], "ctpl_price_psar_adi_v1", plot)
    wrong = [1 for a, b in zip(long[cut:], short, strict=True) if b is not None and abs(a - b) > 1e-9]
    assert any(value is not None for value in short)
    assert len(wrong) <= 20


@pytest.mark.parametrize(
    ("template_id", "plot", "first"),
    [
        ("ctpl_price_ma1226_vol_v1", ("MA Double 12 26", "Plot 1"), 11),
        ("ctpl_price_ma1226_vol_v1", ("MA Double 12 26", "Plot 2"), 25),
        ("ctpl_price_ma1226_bb_macd1226_v1", ("BB 20 2", "Upper"), 19),
    ],
)
def test_a_windowed_study_begins_with_its_first_full_window(template_id, plot, first):
    """A windowed study starts at its first full window, an average of 12 at bar 12."""
    values = _drawn(bars_of()[:60], template_id, plot)
    assert [value is None for value in values] == [n < first for n in range(60)]


@pytest.mark.parametrize(("template_id", "plot"), [case[:2] for case in RECURSIVE])
def test_thirty_bars_leave_recursive_studies_empty(template_id, plot):
    """RSI, MACD and ADX draw nothing from thirty bars."""
    assert set(_drawn(bars_of()[:30], template_id, plot)) == {None}


def test_all_earlier_bars_are_warm_up():
    """At 800 pixels about 115 of 400 bars are shown; the earlier ones are the warm-up."""
    grid = plan_of(bars_of(), request_of("ctpl_price_ma1226_vol_v1")).grid
    assert 110 <= grid.count <= 125
    assert grid.pitch == 6
    assert grid.first == 400 - grid.count >= 200


def test_a_wide_chart_spreads_its_bars_rather_than_use_up_the_warm_up():
    """At 1920 pixels 200 of 400 bars are shown, further apart, so that the warm-up stays."""
    grid = plan_of(bars_of(), request_of("ctpl_price_ma1226_vol_v1", width=1920, height=1080)).grid
    assert (grid.count, grid.first, grid.pitch) == (200, 200, 9)


def test_a_wide_chart_of_a_short_history_shows_what_a_small_one_would():
    """With little history a wide chart shows about 115 bars, as a small one does, with less warm-up."""
    grid = plan_of(bars_of()[:200], request_of("ctpl_price_ma1226_vol_v1", width=1920, height=1080)).grid
    assert (grid.count, grid.pitch) == (115, 15)
