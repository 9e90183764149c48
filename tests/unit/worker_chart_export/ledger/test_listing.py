"""Lists of runs, leases and expired leases, page by page."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from localcloud import Fault
from tests.support.fakes import chart_step, run_document
from tests.support.ledger.ledger_process import STEPS, StoredRun
from tests.support.ledger.samples import READ_TIME, lease_of, seconds
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.ledger.expired_leases import ExpiredLease, delete_lease, expired_leases
from worker_chart_export.ledger.lease import LEASES
from worker_chart_export.ledger.listing import lease_pages, read_leases, run_pages
from worker_chart_export.ledger.run_snapshot import read_lease, read_run_with_all_leases
from worker_chart_export.timing import SystemClock


@pytest.fixture
def leases(documents, run):
    """Give each step a lease that ends a second later than that of the step before."""
    for number, name in enumerate(STEPS):
        _put_lease(run, name, expires_at=READ_TIME + seconds(number))
    elsewhere = documents.collection("elsewhere").document("r").collection(LEASES)
    elsewhere.document("s0").set(lease_of().to_document())
    documents.collection(LEASES).document("s0").set(lease_of(expires_at=READ_TIME).to_document())
    return run


def _put_lease(run, name, **fields):
    lease = lease_of(name, **fields)
    run.lease_reference(name).set(lease.to_document())
    return lease


def _requests(cloud, method):
    """Return the requests of a method from now on."""
    seen = []
    cloud.firestore.faults.add(Fault(method=method, before=seen.append))
    return seen


class TestExpired:
    """The leases that the rescue looks at."""

    @pytest.mark.parametrize(("steps", "queries"), [(0, 1), (1, 1), (2, 2), (3, 2)])
    def test_those_that_ended_before_come_in_pages_the_oldest_first(
        self, leases, documents, cloud, steps, queries
    ):
        """Only their place is read: another field may hold a value that the client can't decode."""
        requests = _requests(cloud, "RunQuery")
        pages = list(expired_leases(documents, before=READ_TIME + seconds(steps), page_size=3))
        found = [lease for page in pages for lease in page]
        assert found == [ExpiredLease(run_id=leases.run_id, step_id=name) for name in STEPS[:steps]]
        assert len(requests) == queries  # with the lease that belongs to no run
        fields = {
            field.field_path for request in requests for field in request.structured_query.select.fields
        }
        assert fields == {"expiresAt"}

    @pytest.mark.usefixtures("leases")
    def test_a_short_outage_is_no_error(self, documents, cloud):
        """The client repeats a read."""
        cloud.firestore.faults.add(Fault(method="RunQuery", error="UNAVAILABLE", times=1))
        assert [page for page in expired_leases(documents, before=READ_TIME + seconds(1)) if page]

    def test_a_read_that_took_too_long_is_not_repeated(self, documents, cloud):
        """Google's default would repeat it for minutes."""
        cloud.firestore.faults.add(Fault(method="RunQuery", error="DEADLINE_EXCEEDED", times=1))
        with pytest.raises(BackendUnavailable):
            list(expired_leases(documents, before=READ_TIME))

    def test_a_lease_is_deleted_unless_it_has_changed(self, leases, documents, cloud):
        """A delete is never repeated: the answer to the first one may be lost."""
        place = (documents, leases.run_id, "s0")
        old = read_lease(*place)
        assert old is not None
        new = _put_lease(leases, "s0", expires_at=READ_TIME + seconds(99))
        assert delete_lease(*place, old) is False
        stored = read_lease(*place)
        assert stored is not None
        assert stored.lease == new
        cloud.firestore.faults.add(Fault(method="Commit", error="UNAVAILABLE", times=1))
        with pytest.raises(BackendUnavailable):
            delete_lease(*place, stored)
        assert delete_lease(*place, stored) is True
        assert read_lease(*place) is None
        assert delete_lease(*place, stored) is False


class TestLists:
    """What the commands and the page list."""

    def test_leases_are_listed_with_the_statuses_of_their_steps(self, leases, documents, cloud):
        """By their end. Of each run only those statuses are read."""
        leases.set_status("s1", "RUNNING")
        StoredRun(documents, "r2").lease_reference("s0").set(lease_of(expires_at=READ_TIME).to_document())
        requests = _requests(cloud, "BatchGetDocuments")
        listed = [lease for page in lease_pages(documents) for lease in page]
        statuses = [(lease.run_id, lease.step_id, lease.step_status) for lease in listed]
        assert sorted(statuses[:2]) == [("r", "s0", "READY"), ("r2", "s0", None)]
        assert statuses[2:4] == [("r", "s1", "RUNNING"), ("r", "s2", "READY")]
        assert [lease.lease.expires_at for lease in listed[2:]] == [
            READ_TIME + seconds(number) for number in range(1, len(STEPS))
        ]
        assert set(requests[0].mask.field_paths) == {f"steps.{name}.status" for name in STEPS}

    def test_leases_are_read_for_the_steps_that_have_one(self, leases, documents):
        """The others are left out."""
        place = (leases.run_id, "s3")
        found = read_leases(documents, [place, ("absent", "s0")])
        assert found == {place: lease_of("s3", expires_at=READ_TIME + seconds(3))}

    def test_runs_are_listed_since_a_time(self, documents, monkeypatch):
        """`createdAt` may be a text in any time zone or a timestamp. The newest come first."""
        since = datetime(2025, 12, 15, 12, tzinfo=UTC)
        days = {"new": 0, "old": -3, "late": 2}
        for name, days_after in days.items():
            time_of = since + timedelta(days=days_after, hours=-23)
            for kind, value in (("text", time_of.isoformat().replace("+00:00", "Z")), ("stamp", time_of)):
                document = run_document({"s": chart_step()}, createdAt=value)
                documents.document(f"flow_runs/{name}-{kind}").set(document)
        monkeypatch.setenv("TZ", "Asia/Tokyo")  # the machine's own zone means nothing
        time.tzset()
        try:
            recent = [run.run_id for page in run_pages(documents, created_since=since) for run in page]
        finally:
            monkeypatch.undo()
            time.tzset()
        assert recent == ["late-text", "new-text", "late-stamp"]
        listed = {run.run_id: run for page in run_pages(documents) for run in page}
        assert len(listed) == len(days) * 2
        assert listed["new-text"].fields["createdAt"] == "2025-12-14T13:00:00Z"
        assert "runId" not in listed["new-text"].fields

    def test_a_run_is_read_with_all_its_leases(self, run, documents):
        """A step that is RUNNING without a lease has None; a lease that is left over is read too."""
        for name in ("s0", "s1"):
            run.set_status(name, "RUNNING")
        expected = {name: _put_lease(run, name) for name in ("s0", "s2")}
        snapshot = read_run_with_all_leases(documents, run.run_id, SystemClock())
        found = {name: stored and stored.lease for name, stored in snapshot.leases.items()}
        assert found == {**expected, "s1": None}
