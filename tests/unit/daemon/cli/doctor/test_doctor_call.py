"""`doctor --call`: one Chart-IMG request with every kind of response."""

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
def test_one_call_is_made_and_counted_for_any_response(cloud, documents, answer, meaning):
    """Exactly one call is made and counted for any response, without a retry or another account."""
    if answer:
        cloud.chart_img.faults.add(Fault(answer=answer))
    trial = call_once(documents, [account("a"), account("b", key="other-key")], cloud.chart_img.url)
    assert (trial.account_id, trial.meaning) == ("a", meaning)
    assert len(cloud.chart_img.requests) == 1
    # A used-up account is noted as such, so that no worker calls it.
    assert used(documents, "a") == (1000 if meaning is Meaning.EXHAUSTED else 1)
    assert used(documents, "b") == 0
    assert KEY not in repr(trial)


def test_a_call_without_an_answer_counts_too(cloud, documents):
    """A call without a response counts too, and its message names the network error."""
    cloud.chart_img.faults.add(Fault(reset=True))
    trial = call_once(documents, [account("a")], cloud.chart_img.url)
    assert (trial.account_id, trial.meaning) == ("a", None)
    assert trial.text
    assert used(documents, "a") == 1


def test_a_call_that_takes_too_long_ends(cloud, documents):
    """A call that takes too long ends with a message that does not mention a step."""
    cloud.chart_img.faults.add(Fault(delay_seconds=1.0))
    trial = call_once(documents, [account("a")], cloud.chart_img.url, seconds=0.5)
    assert (trial.account_id, trial.meaning, trial.text) == ("a", None, "the time limit was reached")


def test_a_used_up_account_is_skipped_as_by_the_daemon(cloud, documents):
    """A used-up account is skipped, and without another one no call is made."""
    spent = account("spent", daily_limit=1)
    call_once(documents, [spent], cloud.chart_img.url)
    assert call_once(documents, [spent, account("b")], cloud.chart_img.url).account_id == "b"
    before = len(cloud.chart_img.requests)
    trial = call_once(documents, [spent], cloud.chart_img.url)
    assert (trial.account_id, trial.meaning) == (None, Meaning.EXHAUSTED)
    assert "spent" in trial.text
    assert len(cloud.chart_img.requests) == before


@pytest.mark.parametrize("mode", ["local", "mock"])
def test_modes_without_chart_img_need_no_account(tmp_path, mode):
    """Modes without Chart-IMG need no account and make no call."""
    charts = ChartSettings(charts_api_mode=mode, charts_fixtures_dir=tmp_path)
    assert check_accounts(charts)[0].status == "ok"
    (call,) = check_call(FirestoreSettings(google_cloud_project="p"), charts)
    assert (call.check, call.status) == ("accounts.call", "not_checkable")


def test_a_folder_without_fixtures_is_worth_a_warning(tmp_path):
    """A folder without fixtures gives a warning, because every chart would fail."""
    charts = ChartSettings(charts_api_mode="mock", charts_fixtures_dir=tmp_path)
    assert [found.status for found in check_accounts(charts)] == ["ok", "warning"]
    (tmp_path / "IBM__1d__ctpl_a.png").touch()
    assert [found.status for found in check_accounts(charts)] == ["ok", "ok"]


def test_accounts_are_described_without_calls():
    """Accounts are described by number, ids, daily limits and plans, without keys or calls."""
    given = [{"id": "a", "apiKey": KEY, "plan": "PRO", "dailyLimit": 500}, {"id": "b", "apiKey": "other-key"}]
    (found,) = check_accounts(ChartSettings(chart_img_accounts_json=json.dumps(given)))
    message = "2 accounts, 544 calls a day: a (500 a day, plan PRO), b (44 a day, plan not given)"
    assert (found.status, found.summary) == ("ok", message)
