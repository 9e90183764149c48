"""`doctor --call`: one request of Chart-IMG, whatever is answered."""

from __future__ import annotations

import json

import pytest

from daemon.cli.doctor.checks.accounts import call_once, check_accounts, check_call
from daemon.settings import ChartSettings, FirestoreSettings
from localcloud import Fault
from tests.support.charts.chart_img_samples import KEY, account, used
from worker_chart_export.charts.chart_img.answers import Meaning


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        ("", Meaning.CHART),
        ("too_many_requests", Meaning.TOO_FAST),
        ("limit_exceeded", Meaning.EXHAUSTED),
        ("forbidden", Meaning.BAD_KEY),
        ("over_parameters", Meaning.OVER_PLAN),
        ("server_error", Meaning.TRANSIENT),
        ("truncated", Meaning.TRANSIENT),
        ("invalid_fields", Meaning.REFUSED),
        ("too_large", None),
    ],
)
def test_one_call_is_made_and_counted_whatever_is_answered(cloud, documents, answer, meaning):
    """Neither tried again nor taken to the next account."""
    if answer:
        cloud.chart_img.faults.add(Fault(answer=answer))
    trial = call_once(documents, [account("a"), account("b", key="other-key")], cloud.chart_img.url)
    assert (trial.account_id, trial.meaning) == ("a", meaning)
    assert len(cloud.chart_img.requests) == 1
    assert (used(documents, "a"), used(documents, "b")) == (1, 0)
    assert KEY not in repr(trial)


def test_a_call_without_an_answer_is_one_too(cloud, documents):
    """Its text says what happened."""
    cloud.chart_img.faults.add(Fault(reset=True))
    trial = call_once(documents, [account("a")], cloud.chart_img.url)
    assert (trial.account_id, trial.meaning) == ("a", None)
    assert trial.text
    assert used(documents, "a") == 1


def test_a_call_that_takes_too_long_is_given_up(cloud, documents):
    """The text is not about a step: there is none."""
    cloud.chart_img.faults.add(Fault(delay_seconds=1.0))
    trial = call_once(documents, [account("a")], cloud.chart_img.url, seconds=0.5)
    assert (trial.account_id, trial.meaning, trial.text) == ("a", None, "the time limit was reached")


def test_a_used_up_account_is_passed_over_as_the_daemon_does(cloud, documents):
    """The next one answers; without a next one nothing is asked."""
    spent = account("spent", daily_limit=1)
    call_once(documents, [spent], cloud.chart_img.url)
    assert call_once(documents, [spent, account("b")], cloud.chart_img.url).account_id == "b"
    before = len(cloud.chart_img.requests)
    trial = call_once(documents, [spent], cloud.chart_img.url)
    assert (trial.account_id, trial.meaning) == (None, Meaning.EXHAUSTED)
    assert "spent" in trial.text
    assert len(cloud.chart_img.requests) == before


@pytest.mark.parametrize("mode", ["local", "mock"])
def test_modes_that_ask_nothing_of_chart_img_need_no_account(tmp_path, mode):
    """And have no call to spend."""
    charts = ChartSettings(charts_api_mode=mode, charts_fixtures_dir=tmp_path)
    assert check_accounts(charts)[0].status == "ok"
    (call,) = check_call(FirestoreSettings(google_cloud_project="p"), charts)
    assert (call.check, call.status) == ("accounts.call", "not_checkable")


def test_a_folder_without_fixtures_is_worth_a_warning(tmp_path):
    """Every chart would fail."""
    charts = ChartSettings(charts_api_mode="mock", charts_fixtures_dir=tmp_path)
    assert [found.status for found in check_accounts(charts)] == ["ok", "warning"]
    (tmp_path / "IBM__1d__ctpl_a.png").touch()
    assert [found.status for found in check_accounts(charts)] == ["ok", "ok"]


def test_accounts_are_told_by_their_shape():
    """Number, ids, daily limits, plans; no keys, and no request is sent."""
    given = [{"id": "a", "apiKey": KEY, "plan": "PRO", "dailyLimit": 500}, {"id": "b", "apiKey": "other-key"}]
    (found,) = check_accounts(ChartSettings(chart_img_accounts_json=json.dumps(given)))
    words = "2 accounts, 544 calls a day: a (500 a day, plan PRO), b (44 a day, plan not given)"
    assert (found.status, found.summary) == ("ok", words)
