"""`record` mode: existing fixtures are used, missing ones are requested once and stored."""

from __future__ import annotations

import json
import stat

import pytest

from localcloud import Fault
from tests.support.charts.chart_img_samples import KEY, account, provider_on
from tests.support.fakes import ScriptedProvider, chart_request, png_bytes
from worker_chart_export.charts.chart_img import attempts as attempts_module
from worker_chart_export.charts.fixtures import FixtureProvider
from worker_chart_export.charts.recorder import RecordingProvider
from worker_chart_export.errors import (
    ChartApiFailed,
    ChartApiLimitExceeded,
    ChartApiMockMissing,
    ChartTooLarge,
)

STEM = "NYSE_IBM__1d__ctpl_a"


@pytest.fixture
def record(cloud, documents, tmp_path, monkeypatch):
    """Return a recorder of the stand-in's responses."""
    monkeypatch.setattr(attempts_module, "pause_seconds", lambda _answer, _failures: 0.0)
    with provider_on(cloud.chart_img.url, documents, account()) as real:
        yield RecordingProvider(folder=tmp_path, fixtures=FixtureProvider(tmp_path), real=real)


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _calls(cloud):
    return cloud.chart_img.calls["advanced-chart"]


def test_a_fixture_is_answered_without_a_call(record, cloud, tmp_path):
    """An existing fixture is used without a call."""
    (tmp_path / f"{STEM}.png").write_bytes(b"png")
    assert record.chart(chart_request()).png == b"png"
    assert _calls(cloud) == 0


def test_a_missing_one_is_requested_once_and_stored_for_mock(record, cloud, tmp_path, log_lines):
    """A missing fixture is requested once and stored under the name that `mock` mode reads."""
    first, second = record.chart(chart_request()), record.chart(chart_request())
    assert (first.provider, second.provider, _calls(cloud)) == ("chart-img", "mock", 1)
    assert second.png == first.png == (tmp_path / f"{STEM}.png").read_bytes()
    assert _names(tmp_path) == [f"{STEM}.png"]
    assert FixtureProvider(tmp_path).chart(chart_request()).png == first.png
    assert [line["event"] for line in log_lines()] == ["chart_api_call_finished", "fixture_saved"]


def test_a_file_can_be_read_by_all_as_any_other(record, tmp_path):
    """A stored fixture is readable by all users, because it is meant to be shared."""
    record.chart(chart_request())
    assert stat.S_IMODE((tmp_path / f"{STEM}.png").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("invalid_symbol", "422_INVALID_SYMBOL"),
        ("invalid_fields", "422_INTERVAL_INVALID_VALUE"),
        ("not_found", "404_NOT_FOUND"),
        ("server_error", "500_SOMETHING_WENT_WRONG"),
    ],
)
def test_an_error_is_recorded_and_then_answered(record, cloud, tmp_path, answer, name):
    """An error is recorded, and then raised by `record` and `mock` with the API's message."""
    cloud.chart_img.faults.add(Fault(answer=answer))
    with pytest.raises(ChartApiFailed) as real:
        record.chart(chart_request())
    calls = _calls(cloud)
    assert _names(tmp_path) == [f"{STEM}__{name}.json"]
    for provider in (record, FixtureProvider(tmp_path)):
        with pytest.raises(ChartApiFailed, match=rf"answered {name[:3]} {name[4:]}") as caught:
            provider.chart(chart_request())
        assert caught.value.details["httpStatus"] == int(name[:3])
        assert json.loads(caught.value.details["body"])["message"] == real.value.details["apiMessage"]
    assert _calls(cloud) == calls


@pytest.mark.parametrize("fault", [{"reset": True}, {"answer": "truncated"}, {"answer": "html"}])
def test_responses_that_do_not_depend_on_the_request_are_not_recorded(record, cloud, tmp_path, fault):
    """Responses that do not depend on the request, such as outages, are not recorded."""
    cloud.chart_img.faults.add(Fault(**fault))
    with pytest.raises(ChartApiFailed):
        record.chart(chart_request())
    assert _names(tmp_path) == []


@pytest.mark.parametrize("answer", ["limit_exceeded", "forbidden"])
def test_an_account_that_gives_no_chart_is_no_fixture(record, cloud, tmp_path, answer):
    """The error of an account without charts is not recorded: another day or key gives the chart."""
    cloud.chart_img.faults.add(Fault(answer=answer))
    with pytest.raises(ChartApiLimitExceeded):
        record.chart(chart_request())
    assert _names(tmp_path) == []


def test_a_picture_too_large_is_no_fixture(record, cloud, tmp_path):
    """A too large picture is not recorded, because its readers would refuse it."""
    cloud.chart_img.faults.add(Fault(answer="too_large"))
    with pytest.raises(ChartTooLarge):
        record.chart(chart_request())
    assert _names(tmp_path) == []


def test_a_folder_that_can_t_be_written_is_found_before_anything_is_paid_for(tmp_path):
    """A folder that can't be written fails before a chart is paid for."""
    folder, real = tmp_path / "gone", ScriptedProvider()
    provider = RecordingProvider(folder=folder, fixtures=FixtureProvider(folder), real=real)
    with pytest.raises(ChartApiMockMissing, match=r"No fixture can be saved there: No such file") as caught:
        provider.chart(chart_request())
    assert caught.value.details == {"fixture": f"{STEM}.png"}
    assert real.asked == []


def test_a_fixture_that_can_t_be_saved_is_no_reason_to_lose_the_chart(tmp_path, log_lines):
    """The chart is returned even when its fixture can't be stored."""
    folder = tmp_path / "going"
    folder.mkdir()
    real = ScriptedProvider({"ctpl_a": lambda _request: folder.rmdir() or png_bytes()})
    provider = RecordingProvider(folder=folder, fixtures=FixtureProvider(folder), real=real)
    assert provider.chart(chart_request()).png == png_bytes()
    (line,) = log_lines()
    assert (line["event"], line["severity"]) == ("fixture_not_saved", "ERROR")


def test_an_unfinished_file_is_deleted(tmp_path):
    """A partly written file is deleted when it can't be renamed."""
    (tmp_path / f"{STEM}.png").mkdir()
    provider = RecordingProvider(folder=tmp_path, fixtures=FixtureProvider(tmp_path), real=ScriptedProvider())
    provider.chart(chart_request())
    assert _names(tmp_path) == [f"{STEM}.png"]


def test_no_symbol_leaves_the_folder(record, tmp_path):
    """A symbol with a slash does not leave the folder."""
    record.chart(chart_request(symbol="../../X:A/B:C"))
    assert _names(tmp_path) == [".._.._X_A_B_C__1d__ctpl_a.png"]


def test_no_key_is_recorded(record, cloud, tmp_path):
    """No file content or name holds a key that the server quotes."""
    cloud.chart_img.faults.add(Fault(answer="quoted_key", times=1))
    with pytest.raises(ChartApiFailed):
        record.chart(chart_request())
    record.chart(chart_request(symbol="NYSE:GE"))
    error, picture = sorted(tmp_path.iterdir(), key=lambda path: path.suffix)
    assert json.loads(error.read_bytes())["message"] == "(key): No chart for (key)"
    assert KEY.upper().replace("-", "_") not in error.name
    assert [path.name for path in (error, picture) if KEY.encode() in path.read_bytes()] == []
