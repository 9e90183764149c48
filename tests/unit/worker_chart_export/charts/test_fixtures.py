"""`mock` mode: charts come from files."""

from __future__ import annotations

import pytest

from tests.support.fakes import chart_request
from worker_chart_export.charts.fixtures import FixtureProvider
from worker_chart_export.errors import ChartApiFailed, ChartApiLimitExceeded, ChartApiMockMissing

STEM = "NYSE_IBM__1d__ctpl_a"


@pytest.fixture
def provider(tmp_path):
    """Return a provider on an empty folder."""
    return FixtureProvider(tmp_path)


def test_a_fixture_is_the_chart(provider, tmp_path):
    """A fixture named by symbol, timeframe and template is the chart."""
    (tmp_path / f"{STEM}.png").write_bytes(b"png")
    image = provider.chart(chart_request())
    assert (image.png, image.provider, image.meta) == (b"png", "mock", {"fixture": f"{STEM}.png"})


def test_a_missing_fixture_is_named(provider):
    """The error for a missing fixture names the file to add."""
    with pytest.raises(ChartApiMockMissing, match=rf"No fixture {STEM}\.png") as caught:
        provider.chart(chart_request())
    assert caught.value.details == {"fixture": f"{STEM}.png"}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("429_LIMIT_EXCEEDED", ChartApiLimitExceeded),
        ("403_FORBIDDEN", ChartApiFailed),
        ("500_SOMETHING_WENT_WRONG", ChartApiFailed),
    ],
)
def test_an_error_fixture_is_the_error(provider, tmp_path, name, error):
    """An error fixture raises an error with its status and the API's message."""
    (tmp_path / f"{STEM}__{name}.json").write_text('{"message": "no"}')
    with pytest.raises(error, match=rf"answered {name[:3]} {name[4:]}") as caught:
        provider.chart(chart_request())
    assert caught.value.details == {"httpStatus": int(name[:3]), "body": '{"message": "no"}'}


def test_a_picture_comes_before_an_error(provider, tmp_path):
    """A picture is used before an error fixture of the same name."""
    (tmp_path / f"{STEM}__500_X.json").write_text("{}")
    (tmp_path / f"{STEM}.png").write_bytes(b"png")
    assert provider.chart(chart_request()).png == b"png"


@pytest.mark.parametrize(
    "name", [f"{STEM}2__500_X.json", f"{STEM}__50_X.json", f"{STEM}__500.json", f"x{STEM}__500_X.json"]
)
def test_fixtures_of_other_templates_are_not_used(provider, tmp_path, name):
    """A fixture of another template, whose id begins with this one, is not used."""
    (tmp_path / name).write_text("{}")
    with pytest.raises(ChartApiMockMissing):
        provider.chart(chart_request())


def test_a_name_too_long_for_the_file_system_is_missing(provider):
    """A name longer than the file system allows is a missing fixture: the request fails, not the step."""
    with pytest.raises(ChartApiMockMissing, match=r"can't be read: File name too long"):
        provider.chart(chart_request(symbol="X" * 300))


def test_a_fixture_that_can_t_be_read_is_missing(provider, tmp_path):
    """A fixture that can't be read, such as a folder, counts as missing."""
    (tmp_path / f"{STEM}__500_X.json").mkdir()
    with pytest.raises(ChartApiMockMissing, match=r"can't be read: Is a directory"):
        provider.chart(chart_request())
