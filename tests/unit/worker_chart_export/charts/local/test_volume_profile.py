"""The volume profile equals a plain-Python oracle."""

from __future__ import annotations

import pytest

from tests.support.charts.local_chart_samples import bars_of, column, plan_of, request_of
from worker_chart_export.charts.local.studies.volume_profile import value_area, volume_profile


def expected_profile(bars, rows):
    """Return rising and falling volume per price row; a bar's volume is spread evenly over its range."""
    low, high = min(b["low"] for b in bars), max(b["high"] for b in bars)
    size = (high - low) / rows
    up, down = [0.0] * rows, [0.0] * rows
    for bar in bars:
        side = up if bar["close"] >= bar["open"] else down
        reach = bar["high"] - bar["low"]
        for row in range(rows):
            bottom = low + row * size
            inside = min(bottom + size, bar["high"]) - max(bottom, bar["low"])
            if reach > 0:
                side[row] += bar["volume"] * max(inside, 0) / reach
            elif bottom <= bar["low"] < bottom + size or (row == rows - 1 and bar["low"] >= bottom):
                side[row] += bar["volume"]
    return up, down


@pytest.mark.parametrize("rows", [1, 7, 24, 100])
def test_volume_profile_equals_the_oracle_and_keeps_all_volume(rows):
    """The volume profile equals the oracle and keeps the total volume."""
    bars = bars_of()
    plan = plan_of(bars, request_of("ctpl_price_vpvr_obv_v1"))
    visible = bars[plan.grid.first :]
    profile = volume_profile(plan.visible, rows=rows, area_percent=70)
    up, down = expected_profile(visible, rows)
    total = sum(column(visible, "volume"))
    assert profile.up.tolist() == pytest.approx(up, abs=1e-6 * total)
    assert profile.down.tolist() == pytest.approx(down, abs=1e-6 * total)
    assert float((profile.up + profile.down).sum()) == pytest.approx(total)
    assert profile.control == max(range(rows), key=lambda n: (up[n] + down[n], -n))


def test_value_area_grows_from_the_control_row_to_the_larger_neighbour():
    """The value area grows to the larger neighbour, upwards on a tie, until its percentage is reached."""
    assert value_area([1, 5, 10, 4, 5], 2, 70) == (1, 4)
    assert value_area([3, 10, 3], 1, 70) == (1, 3)
    assert value_area([3, 10, 3], 1, 0) == (1, 2)
    assert value_area([3, 10, 3], 1, 100) == (0, 3)
