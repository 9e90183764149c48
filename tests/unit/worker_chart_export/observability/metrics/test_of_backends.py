"""Metrics of backend calls and of values read from backends."""

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from google.api_core import exceptions as google_errors

from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.handling.rescue import Rescue
from daemon.lifecycle.drain import Drain
from localcloud import Fault
from tests.support.charts.chart_img_samples import account
from tests.support.fakes import BUCKET, HandClock, scope_of
from tests.support.metric_counts import value
from worker_chart_export.backends.firestore import LostRace, send
from worker_chart_export.charts.chart_img.quota import QuotaLedger
from worker_chart_export.charts.chart_img.usage_document import USAGE
from worker_chart_export.errors import (
    BackendRefused,
    BackendUnavailable,
    BucketUnusable,
    IndexMissing,
    OhlcvUnavailable,
    WorkerError,
)
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.ledger.finished_steps import FinishedSteps
from worker_chart_export.outputs.artifact_store import ArtifactStore
from worker_chart_export.timing import SystemClock

DAY_SECONDS = 86400


@pytest.fixture
def store(objects):
    """Return the charts bucket."""
    return ArtifactStore(client=objects, bucket=BUCKET)


class TestBackends:
    """Calls are counted where their errors are translated."""

    @pytest.mark.parametrize(
        ("error", "kind", "expected"),
        [
            ("RESOURCE_EXHAUSTED", "unavailable", BackendUnavailable),
            ("PERMISSION_DENIED", "refused", BackendRefused),
        ],
    )
    def test_a_firestore_that_fails(self, bench, error, kind, expected, grown):
        """Firestore errors are counted by whether a retry can help."""
        bench.cloud.firestore.faults.add(Fault(method="BatchGetDocuments", error=error))
        with pytest.raises(expected):
            bench.pipeline()._ledger.probe()
        assert grown() == {f"backend_calls_total{{firestore,{kind}}}": 1}

    def test_a_firestore_that_is_unavailable_at_a_commit(self, documents, cloud, grown):
        """A failed commit is counted as a Firestore call."""
        cloud.firestore.faults.add(Fault(method="Commit", error="DEADLINE_EXCEEDED"))
        batch = documents.batch()
        batch.set(documents.document("any/one"), {})
        with pytest.raises(BackendUnavailable):
            send(batch)
        assert grown() == {"backend_calls_total{firestore,unavailable}": 1, "commits_total{unknown}": 1}

    def test_calls_that_are_answered(self, bench, answered):
        """A step of one chart counts all Firestore calls and two written objects."""
        bench.put("ctpl_a")
        calls = bench.cloud.firestore.calls
        calls.reset()
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        assert answered("firestore") == sum(calls.as_dict().values()) >= 4
        assert answered("storage") == 2

    def test_a_race_is_lost_to_an_answer(self, documents, answered, grown):
        """A lost race counts as a successful call, because Firestore answered it."""
        batch = documents.batch()
        batch.create(documents.document("any/one"), {})
        documents.document("any/one").set({})
        with pytest.raises(LostRace):
            send(batch)
        assert answered("firestore") == 1
        assert grown() == {"commits_total{lost_race}": 1}

    @pytest.mark.usefixtures("short_backoff")
    def test_a_briefly_unavailable_storage(self, bench, grown):
        """A failed call is counted, although its retry succeeds."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", error=503, times=1))
        bench.put("ctpl_a")
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        assert grown()["backend_calls_total{storage,unavailable}"] == 1

    def test_a_storage_that_refuses(self, bench, grown):
        """Each refusal of an upload is counted; it is tried once more."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", match="ctpl_a", error=403, times=2))
        bench.put("ctpl_a", min_images=0)
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        counts = grown()
        assert counts["backend_calls_total{storage,refused}"] == 2
        assert counts["chart_failures_total{GCS_WRITE_FAILED}"] == 1

    # Google's client leaves the connection of a download that failed to the garbage collector.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize(
        ("status", "result"),
        [(404, "answered"), (400, "answered"), (416, "answered"), (403, "refused"), (401, "refused")],
    )
    def test_a_file_that_a_step_names(self, store, cloud, status, result, grown, answered):
        """Of the errors of a candle file only a forbidden one counts as a refusal of the backend."""
        cloud.storage.faults.add(Fault(method="objects.download", error=status, times=1))
        with pytest.raises(OhlcvUnavailable):
            store.read_candles(f"gs://{BUCKET}/named.json", scope=scope_of())
        refusals = {"backend_calls_total{storage,refused}": 1} if result == "refused" else {}
        gc.collect()
        assert (grown(), answered("storage")) == (refusals, 0 if refusals else 1)

    def test_a_bucket_that_is_missing(self, objects, grown):
        """A missing charts bucket counts as a refusal, because no step named it."""
        store = ArtifactStore(client=objects, bucket="not-there")
        with pytest.raises(BucketUnusable):
            store.upload_png("charts/r/s/a.png", b"png", metadata={}, scope=scope_of())
        assert grown() == {"backend_calls_total{storage,refused}": 2}  # the probe too

    def test_an_object_that_is_there_already(self, store, grown, answered):
        """A failed precondition counts as a successful call."""
        for _ in range(2):
            store.upload_png("charts/r/s/a.png", b"png", metadata={}, scope=scope_of())
        assert (grown(), answered("storage")) == ({}, 2)

    @pytest.mark.parametrize(
        ("error", "result"),
        [
            (google_errors.FailedPrecondition("stale"), "lost_race"),
            (google_errors.DeadlineExceeded("slow"), "unknown"),
            (google_errors.InvalidArgument("bad"), "unacceptable"),
            (google_errors.PermissionDenied("no"), "refused"),
            (None, "landed"),
        ],
    )
    def test_a_commit_by_how_it_ended(self, error, result, grown):
        """Each commit is counted once by its result."""

        def commit(**_how):
            if error is not None:
                raise error
            return []

        try:
            send(SimpleNamespace(commit=commit))
        except WorkerError:
            assert error is not None
        assert grown()[f"commits_total{{{result}}}"] == 1

    def test_the_quota_as_last_seen(self, documents):
        """The quota gauges show the document's numbers, also when nothing is left."""
        quota, mine = QuotaLedger(documents), account("acc-quota", daily_limit=2)
        for used in (1, 2, 2):
            quota.count(mine, scope_of())
            assert value("chart_img_quota_used", account="acc-quota") == used
        assert value("chart_img_quota_limit", account="acc-quota") == 2

    def test_the_quota_is_that_of_its_window(self, documents):
        """After the quota's window the gauge shows 0, even without a new call."""
        clock = HandClock()
        QuotaLedger(documents, clock).count(account("acc-idle", daily_limit=2), scope_of())
        assert value("chart_img_quota_used", account="acc-idle") == 1
        clock.advance(DAY_SECONDS)
        assert value("chart_img_quota_used", account="acc-idle") == 0
        assert value("chart_img_quota_limit", account="acc-idle") == 2

    def test_a_future_window_ends_at_its_own_end(self, documents):
        """A future window ends at its own end, not at the next midnight."""
        clock, start = HandClock(), datetime.now(UTC) + timedelta(days=2)
        ahead = {"windowStart": start.isoformat(), "usageToday": 2}
        documents.document(f"{USAGE}/acc-ahead").set(ahead)
        QuotaLedger(documents, clock).count(account("acc-ahead", daily_limit=2), scope_of())
        clock.advance(2 * DAY_SECONDS)
        assert value("chart_img_quota_used", account="acc-ahead") == 2
        clock.advance(DAY_SECONDS)
        assert value("chart_img_quota_used", account="acc-ahead") == 0

    @pytest.mark.parametrize(
        ("error", "result"),
        [(None, "done"), (IndexMissing("none"), "index_missing"), (WorkerError("x"), "failed")],
    )
    def test_a_scan_of_the_rescue(self, error, result, grown):
        """A scan of the rescue is counted by whether it could read."""

        def expired_leases():
            if error is not None:
                raise error
            return []

        Rescue(
            ledger=SimpleNamespace(expired_leases=expired_leases, finished=FinishedSteps(SystemClock())),
            pipeline=None,
            breaker=CircuitBreaker(probes={}),
            drain=Drain(),
            interval_seconds=1,
        )._search_safely()
        assert grown() == {f"rescue_looks_total{{{result}}}": 1}

    def test_a_step_that_is_rescued(self, bench, grown):
        """A rescued step is counted by its outcome."""
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease()
        pipeline = bench.pipeline()
        Rescue(
            ledger=pipeline._ledger,
            pipeline=pipeline,
            breaker=CircuitBreaker(probes={}),
            drain=Drain(),
            interval_seconds=1,
        )._search_safely()
        counts = grown()
        assert {name: n for name, n in counts.items() if name.startswith("rescue")} == {
            "rescue_looks_total{done}": 1,
            "rescues_total{succeeded}": 1,
        }
