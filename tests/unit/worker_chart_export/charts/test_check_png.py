"""Check that an image is a complete PNG of the requested size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import png_bytes
from worker_chart_export.charts.base import check_png
from worker_chart_export.errors import ChartApiFailed, ChartTooLarge

SMALL = png_bytes(3, 2)


def _check(data: bytes, *, width: int = 3, height: int = 2, max_bytes: int = 1000) -> None:
    check_png(data, width=width, height=height, max_bytes=max_bytes)


def test_a_complete_png_of_the_requested_size_passes():
    """A complete PNG of the requested size passes."""
    _check(SMALL)


@given(st.integers(0, len(SMALL) - 1))
def test_a_png_cut_off_anywhere_is_refused(length):
    """A PNG that is cut off at any byte is refused."""
    with pytest.raises(ChartApiFailed):
        _check(SMALL[:length])


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data):
    """Other bytes, such as HTML or JSON, are refused."""
    with pytest.raises(ChartApiFailed, match=r"not a PNG"):
        _check(data)


def test_bytes_after_the_end_are_refused():
    """A PNG with bytes after its end chunk is refused."""
    with pytest.raises(ChartApiFailed, match=r"no end chunk"):
        _check(SMALL + b"\n")


def test_a_first_chunk_other_than_the_header_is_refused():
    """A PNG whose first chunk is not the header is refused."""
    with pytest.raises(ChartApiFailed, match=r"not a PNG"):
        _check(SMALL.replace(b"IHDR", b"IHDX"))


@pytest.mark.parametrize(("width", "height"), [(2, 3), (3, 3), (4, 2)])
def test_another_size_is_refused(width, height):
    """A PNG of another size is refused with both sizes."""
    with pytest.raises(ChartApiFailed, match=rf"3x2 pixels instead of {width}x{height}"):
        _check(SMALL, width=width, height=height)


def test_the_largest_allowed_passes():
    """A PNG of exactly the largest allowed size passes."""
    _check(SMALL, max_bytes=len(SMALL))


def test_a_larger_one_has_its_own_error():
    """A larger PNG has its own error, because readers refuse it."""
    with pytest.raises(
        ChartTooLarge, match=rf"has {len(SMALL)} bytes, readers accept at most {len(SMALL) - 1}"
    ):
        _check(SMALL, max_bytes=len(SMALL) - 1)
