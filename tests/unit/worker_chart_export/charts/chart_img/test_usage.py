"""What the commands read of the accounts' usage, and the limit that they write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.charts.chart_img_samples import account, usage_commits, usage_fault
from worker_chart_export.charts.chart_img import usage
from worker_chart_export.charts.chart_img.usage import read_usage, read_usages, set_limit
from worker_chart_export.charts.chart_img.usage_document import USAGE, window_of
from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.timing import Backoff

TODAY = window_of(datetime.now(UTC))


def _stored(documents, account_id="acc-1"):
    return documents.collection(USAGE).document(account_id).get().to_dict()


def _store(documents, account_id, **fields):
    documents.collection(USAGE).document(account_id).set(
        {"windowStart": f"{TODAY:%Y-%m-%dT%H:%M:%SZ}"} | fields
    )


def test_configured_accounts_come_first_and_others_that_have_a_document_follow(documents):
    """The limit of the document counts before that of the settings."""
    _store(documents, "b", usageToday=3, dailyLimit=10)
    _store(documents, "other", usageToday=4)
    _store(documents, "broken", usageToday="many", dailyLimit=7)
    a, b = account("a", daily_limit=44), account("b", daily_limit=44)
    found = read_usages(documents, [b, a])
    assert [(one.account_id, one.account) for one in found] == [
        ("b", b),
        ("a", a),
        ("broken", None),
        ("other", None),
    ]
    assert [(one.used, one.limit, one.is_own_limit, one.left) for one in found] == [
        (3, 10, True, 7),
        (0, 44, False, 44),
        (None, 7, True, 0),
        (4, None, False, None),
    ]
    assert found[0].window in {TODAY, TODAY + timedelta(days=1)}
    assert found[0].window_ends == found[0].window + timedelta(days=1)
    assert read_usage(documents, b) == found[0]


def test_a_limit_is_written_beside_the_count(documents):
    """The limit before is returned, and the count stays."""
    _store(documents, "acc-1", usageToday=3, dailyLimit=10)
    assert set_limit(documents, "acc-1", 20) == 10
    assert _stored(documents) == {
        "windowStart": f"{TODAY:%Y-%m-%dT%H:%M:%SZ}",
        "usageToday": 3,
        "dailyLimit": 20,
    }


def test_an_account_without_a_document_gets_one(documents):
    """Its count starts in the present window."""
    assert set_limit(documents, "acc-1", 20) is None
    stored = _stored(documents)
    assert (stored["usageToday"], stored["dailyLimit"]) == (0, 20)
    assert datetime.fromisoformat(stored["windowStart"]) in {TODAY, TODAY + timedelta(days=1)}


def test_the_same_limit_is_not_written_again(cloud, documents):
    """There is nothing to change."""
    _store(documents, "acc-1", usageToday=3, dailyLimit=10)
    commits = usage_commits(cloud)
    assert set_limit(documents, "acc-1", 10) == 10
    assert commits() == 0


def test_a_document_that_a_worker_changes_meanwhile_is_read_again(cloud, documents):
    """The count of the worker stays."""
    _store(documents, "acc-1", usageToday=3, dailyLimit=10)
    changed = []

    def count(_request):
        if not changed:
            changed.append(True)
            _store(documents, "acc-1", usageToday=4, dailyLimit=11)

    usage_fault(cloud, method="Commit", before=count)
    assert set_limit(documents, "acc-1", 20) == 11
    assert (_stored(documents)["usageToday"], _stored(documents)["dailyLimit"]) == (4, 20)


def test_after_a_commit_without_an_answer_the_limit_before_is_returned(cloud, documents):
    """The next read finds the new limit, which was not there before."""
    _store(documents, "acc-1", usageToday=3, dailyLimit=10)
    usage_fault(cloud, method="Commit", error="UNAVAILABLE", after_effect=True, times=1)
    assert set_limit(documents, "acc-1", 20) == 10
    assert _stored(documents)["dailyLimit"] == 20


def test_after_an_unknown_outcome_the_first_limit_is_returned(documents, monkeypatch):
    """What is read later may be what the commit wrote, or what another client made of it."""
    monkeypatch.setattr(usage, "BACKOFF", Backoff(first_seconds=0.001, max_seconds=0.001))
    _store(documents, "acc-1", usageToday=3, dailyLimit=10)
    send, errors = usage.send, [usage.OutcomeUnknown("firestore", "x"), usage.LostRace("firestore", "x")]

    def fail_twice(batch):
        if not errors:
            return send(batch)
        _store(documents, "acc-1", usageToday=3, dailyLimit=20 + len(errors))
        raise errors.pop(0)

    monkeypatch.setattr(usage, "send", fail_twice)
    assert set_limit(documents, "acc-1", 20) == 10
    assert _stored(documents)["dailyLimit"] == 20


@pytest.mark.parametrize(
    ("error", "raised"), [("ABORTED", BackendUnavailable), ("INVALID_ARGUMENT", BackendRefused)]
)
def test_a_limit_that_can_t_be_written_is_an_error(cloud, documents, monkeypatch, error, raised):
    """A race is tried again, but not for ever."""
    monkeypatch.setattr(usage, "BACKOFF", Backoff(first_seconds=0.001, max_seconds=0.001))
    fault = usage_fault(cloud, method="Commit", error=error)
    with pytest.raises(raised) as refused:
        set_limit(documents, "acc-1", 20)
    assert refused.value.backend == "firestore"
    assert cloud.firestore.faults.fired(fault) == (usage.MAX_COMMITS if error == "ABORTED" else 1)
