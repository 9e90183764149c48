"""Check that an image is a complete PNG of the requested size."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import png_bytes
from worker_chart_export.charts.base import PNG_IEND, check_png
from worker_chart_export.errors import ChartApiFailed, ChartTooLarge

SMALL = png_bytes(3, 2)


def _check(data: bytes, *, width: int = 3, height: int = 2, max_bytes: int = 1000) -> bytes:
    return check_png(data, width=width, height=height, max_bytes=max_bytes)


def test_a_complete_png_of_the_requested_size_passes():
    """A complete PNG of the requested size passes unchanged."""
    assert _check(SMALL) == SMALL


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


@pytest.mark.parametrize("more", [b"\n", b"\r\n", b"x" * 9, b"\0" * 100_000, SMALL, PNG_IEND])
def test_bytes_after_the_end_are_cut_off(more):
    """Bytes after the end chunk are cut off, and don't count for the size."""
    assert _check(SMALL + more, max_bytes=len(SMALL)) == SMALL


@pytest.mark.parametrize(
    "data",
    [
        SMALL[:-12] + b"\0\0\0\x01IENDx" + b"\0" * 4,
        SMALL[:-1] + b"\0",
        SMALL[:-12] + PNG_IEND[:4] + b"iend" + PNG_IEND[8:],
        SMALL[:-12] + b"\xff" * 4 + SMALL[-8:] + PNG_IEND,
    ],
    ids=["with data", "with a wrong CRC", "of another type", "inside a chunk"],
)
def test_only_an_end_chunk_is_an_end(data):
    """An end chunk has no data and its own CRC, and stands where a chunk begins."""
    with pytest.raises(ChartApiFailed, match=r"no end chunk"):
        _check(data)


def test_an_end_chunk_inside_the_data_of_another_ends_nothing():
    """Bytes that look like an end chunk inside another chunk are part of the picture."""
    comment = struct.pack(">I", len(PNG_IEND)) + b"tEXt" + PNG_IEND
    whole = SMALL[:-12] + comment + struct.pack(">I", zlib.crc32(comment[4:])) + PNG_IEND
    assert _check(whole + b"\n") == whole


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
