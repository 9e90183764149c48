"""The rescue's thread: when it scans, what ends a scan, and that only the drain ends the thread."""

from __future__ import annotations

import json
import queue
import threading
from types import SimpleNamespace

import pytest
from google.cloud.firestore_v1 import types

from daemon.handling.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from daemon.handling.rescue import Rescue
from daemon.lifecycle.drain import Drain
from localcloud import Fault
from tests.support.fakes import NOON, RUN_ID, STEP_ID, lease_of, scope_of, snapshot_of
from tests.support.handler_fakes import Ledger as RunLedger
from tests.support.handler_fakes import one_step
from tests.support.metric_counts import value
from tests.support.pipeline_bench import TERMS, Bench
from tests.support.process.daemons import ROOT
from worker_chart_export.errors import BackendRefused, BackendUnavailable, IndexMissing, Interrupted
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.ledger.decisions import FLOW_RUNS, build_claim_update
from worker_chart_export.ledger.expired_leases import ExpiredLease, expired_leases
from worker_chart_export.ledger.finished_steps import FinishedSteps
from worker_chart_export.ledger.heartbeats import Heartbeats
from worker_chart_export.ledger.lease import LEASES
from worker_chart_export.ledger.step_ledger import StepLedger
from worker_chart_export.timing import SystemClock

SECONDS = 10


class Ledger:
    """A ledger with scripted scans: pages of leases, or an error; then nothing."""

    terms = TERMS

    def __init__(self, *scans):
        self.scans = queue.SimpleQueue()
        for scan in scans:
            self.scans.put(scan)
        self.scanned = threading.Semaphore(0)
        self.finished = FinishedSteps(SystemClock())

    def expired_leases(self):
        """Return the pages of the next scan."""
        try:
            found = self.scans.get_nowait()
        except queue.Empty:
            found = []
        self.scanned.release()
        if isinstance(found, Exception):
            raise found
        yield from found

    def wait_for_scans(self, count):
        """Wait until this number of scans has begun."""
        for _ in range(count):
            assert self.scanned.acquire(timeout=SECONDS)


class Rescuing:
    """A rescue that scans continuously, or never by itself, over a scripted ledger."""

    def __init__(self, *scans, interval=0.01):
        self.ledger = Ledger(*scans)
        self.drain = Drain()
        self.breaker = CircuitBreaker(probes={"firestore": lambda: None})
        self.ticks = threading.Semaphore(0)
        self.rescue = Rescue(
            ledger=self.ledger,
            pipeline=None,
            breaker=self.breaker,
            drain=self.drain,
            interval_seconds=interval,
            on_tick=self.ticks.release,
        )

    def thread(self):
        """Return its thread, if there is one."""
        return next((thread for thread in threading.enumerate() if thread.name == "rescue"), None)

    def drained(self):
        """Begin the drain; return whether the thread ended."""
        thread = self.thread()
        self.drain.start()
        if thread:
            thread.join(SECONDS)
        return thread is None or not thread.is_alive()


def _looks(result):
    return value("rescue_looks_total", result=result) or 0


def test_the_first_scan_comes_within_an_interval_and_the_others_about_one_apart(monkeypatch):
    """The daemons that start together don't search together."""
    drawn, waits = [], []
    monkeypatch.setattr(
        "daemon.handling.rescue.full_jitter_seconds",
        lambda *, low, high: drawn.append((low, high)) or high,
    )

    class Stopping(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return len(waits) == 3

    rescuing = Rescuing(interval=8)
    rescuing.rescue._stopping = Stopping()
    rescuing.rescue._run()
    assert drawn == [(0, 8), (0.75, 1.25), (0.75, 1.25)]
    assert waits == [8, 10, 10]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (BackendUnavailable("firestore", "503"), "failed"),
        (BackendRefused("firestore", "403"), "failed"),
        (IndexMissing("no index"), "index_missing"),
        (Interrupted("stopped"), "failed"),
        (KeyError("a mistake"), "failed"),
    ],
)
def test_it_scans_again_after_any_result(error, result):
    """The rescue counts the result of a scan, scans again after any, and ends with the drain."""
    counted = [_looks(result), _looks("done")]
    rescuing = Rescuing(error, error)
    rescuing.rescue.start()
    rescuing.ledger.wait_for_scans(4)
    assert rescuing.thread().daemon
    assert _looks(result) == counted[0] + 2
    assert _looks("done") > counted[1]
    assert rescuing.drained()


def test_it_reports_that_it_is_alive_each_round_and_for_each_lease():
    """The thread reports that it is alive at each round and for each lease of a long scan."""
    rescuing = Rescuing([[]], interval=0.01)
    rescuing.rescue.start()
    for _ in range(3):
        assert rescuing.ticks.acquire(timeout=SECONDS)
    assert rescuing.drained()


def test_it_does_not_scan_while_intake_is_paused():
    """While intake is paused the thread is alive but does not scan."""
    rescuing = Rescuing()
    for _ in range(FAILURES_TO_OPEN):
        rescuing.breaker.record_failure(BackendUnavailable("firestore", "x"))
    rescuing.rescue.start()
    for _ in range(5):
        assert rescuing.ticks.acquire(timeout=SECONDS)
    assert rescuing.drained()
    assert not rescuing.ledger.scanned.acquire(blocking=False)


def test_one_that_starts_while_the_worker_drains_never_scans():
    """A rescue that starts while the worker drains never scans."""
    rescuing = Rescuing(interval=0.0)
    rescuing.drain.start()
    rescuing.rescue.start()
    thread = rescuing.thread()
    assert thread is None or thread.join(SECONDS) is None
    assert not rescuing.ledger.scanned.acquire(blocking=False)


def test_its_outages_and_successes_count_for_the_circuit_breaker(log_lines):
    """A failed scan counts for the circuit breaker as a failure of Firestore, a good one as a success."""
    unavailable = BackendUnavailable("firestore", "503")
    scans = [*[unavailable] * (FAILURES_TO_OPEN - 1), [[]], *[unavailable] * (FAILURES_TO_OPEN - 1)]
    rescuing = Rescuing(*scans, unavailable)
    for _ in scans:
        rescuing.rescue._search_safely()
        assert not rescuing.breaker.is_open
    rescuing.rescue._search_safely()
    assert list(rescuing.breaker.pauses) == ["firestore"]
    assert [line["event"] for line in log_lines()].count("backend_unavailable") == len(scans)


def test_a_step_that_the_drain_does_not_know_of_yet_is_not_begun():
    """A step found before the drain began is not started after it, because no one would wait for it."""
    rescuing = Rescuing()
    rescuing.rescue._pipeline = Pipeline()
    rescuing.rescue.start()
    rescuing.drain.start()
    rescuing.rescue._work(RUN_ID, STEP_ID, None)
    assert rescuing.rescue._pipeline.worked == []


class Pipeline:
    """A pipeline that notes its calls."""

    def __init__(self, outcome=None):
        self.worked = []
        self.outcome = outcome

    def new_scope(self):
        """Return a scope."""
        return scope_of()

    def run(self, *arguments, **more):
        """Note the call, and end it with a manifest."""
        self.worked.append((*arguments, more["snapshot"]))
        return self.outcome


@pytest.mark.parametrize("manifest_uri", [None, "gs://b/m.json"])
def test_what_is_worked_on_is_counted_and_shows_that_storage_works(monkeypatch, manifest_uri):
    """The pipeline gets the read of the run; only a stored manifest proves anything about the storage."""
    rescuing, snapshot, backends = Rescuing(), object(), []
    monkeypatch.setattr(rescuing.breaker, "record_success", backends.append)
    rescuing.rescue._pipeline = Pipeline(SimpleNamespace(kind=OutcomeKind.FAILED, manifest_uri=manifest_uri))
    counted = value("rescues_total", result="failed") or 0
    rescuing.rescue._work(RUN_ID, STEP_ID, snapshot)
    assert rescuing.rescue._pipeline.worked == [(RUN_ID, STEP_ID, snapshot)]
    assert value("rescues_total", result="failed") == counted + 1
    assert backends == (["storage"] if manifest_uri else [])


class Runs(RunLedger):
    """A ledger with scripted runs and leases, and with pages of expired leases.

    Attributes:
        searches: How often expired leases were searched for.
        deleted: The leases that were to be deleted.
        deletes: Whether a lease is still there when it is deleted.
    """

    terms = TERMS

    def __init__(self, *runs, pages=(), deletes=True, **leases):
        super().__init__(*runs, **leases)
        self.pages = pages
        self.deletes = deletes
        self.searches = 0
        self.deleted = []
        self.finished = FinishedSteps(SystemClock())

    def expired_leases(self):
        """Return the pages."""
        self.searches += 1
        return iter(self.pages)

    def delete_lease(self, run_id, step_id, stored):
        """Note the lease."""
        self.deleted.append((run_id, step_id, stored.lease))
        return self.deletes


def _rescuing(ledger, outcome=None):
    """Return a rescue of this ledger that looks again at all steps that have finished."""
    rescuing = Rescuing(interval=0.0)
    rescuing.rescue._ledger = rescuing.ledger = ledger
    rescuing.rescue._pipeline = Pipeline(outcome)
    rescuing.drain.on_start(rescuing.rescue._stopping.set)
    return rescuing


EXPIRED = ExpiredLease(run_id=RUN_ID, step_id=STEP_ID)
OVER = lease_of(left_seconds=-60)
SUCCEEDED = SimpleNamespace(kind=OutcomeKind.SUCCEEDED, manifest_uri=None)


@pytest.mark.parametrize(
    ("run", "lease", "deletes", "worked", "deleted", "events"),
    [
        (one_step(status="RUNNING"), OVER, True, [(RUN_ID, STEP_ID)], [], []),
        (one_step(status="RUNNING"), lease_of(), True, [], [], []),
        (one_step(status="RUNNING"), None, True, [], [], []),
        (one_step(status="FAILED"), OVER, True, [], [(RUN_ID, STEP_ID, OVER)], ["lease_deleted"]),
        (one_step(status="FAILED"), OVER, False, [], [(RUN_ID, STEP_ID, OVER)], []),
        (one_step(status="FAILED"), None, True, [], [], []),
    ],
)
def test_what_is_done_about_a_lease(run, lease, deletes, worked, deleted, events, log_lines):
    """The step is worked on, its lease is deleted, or it is left."""
    ledger = Runs(run, pages=[[EXPIRED]], deletes=deletes, **{STEP_ID: lease})
    rescuing = _rescuing(ledger, SUCCEEDED)
    rescuing.rescue.search()
    assert [call[:2] for call in rescuing.rescue._pipeline.worked] == worked
    assert ledger.deleted == deleted
    assert [line["event"] for line in log_lines()] == events


@pytest.mark.parametrize(
    ("runs", "lease", "manifest", "reads", "adopted"),
    [
        ([one_step(status="SUCCEEDED")], None, None, 1, []),
        ([one_step(status="RUNNING")], None, None, 2, [STEP_ID]),
        ([one_step(status="RUNNING")], None, SUCCEEDED, 2, []),
        ([one_step(status="RUNNING")], lease_of(), None, 2, []),
        ([one_step(status="RUNNING"), one_step(status="SUCCEEDED")], None, None, 2, []),
    ],
)
def test_what_is_done_about_a_step_that_was_finished_here(runs, lease, manifest, reads, adopted):
    """One that is RUNNING again is finalized from its manifest, or else gets a lease."""
    ledger = Runs(*runs, **{STEP_ID: lease})
    rescuing = _rescuing(ledger)
    rescuing.rescue._pipeline.finish_unleased = lambda *_of, **_more: manifest
    ledger.finished.add(RUN_ID, STEP_ID)
    rescuing.rescue.search()
    assert (ledger.reads, ledger.adopted) == (reads, adopted)


@pytest.mark.parametrize("ends", [lambda one: one.drain.start(), lambda one: _pause(one.breaker)])
@pytest.mark.parametrize("after", [0, 1])
def test_a_drain_or_a_pause_ends_a_search(ends, after):
    """Nothing is read after it: no page, no other lease of the page, and no step that was finished."""
    leases, finished = Runs(None, pages=[[EXPIRED] * 3]), Runs(None)
    for number in range(3):
        finished.finished.add(RUN_ID, f"{STEP_ID}{number}")
        finished.finished.add(f"{RUN_ID}{number}", STEP_ID)
    for ledger in (leases, finished):
        rescuing = _rescuing(ledger)
        if after:
            ledger.read = lambda _run_id, **_more: ends(rescuing) or snapshot_of(None, **{STEP_ID: None})  # noqa: B023
            looked = []
            rescuing.rescue._on_tick = lambda: looked.append(1)  # noqa: B023
            rescuing.rescue.search()
            assert looked == [1]
        else:
            ends(rescuing)
            rescuing.rescue.search()
            assert (ledger.reads, ledger.searches) == (0, 0)


def _pause(breaker):
    breaker.pause("storage", "x", probe=lambda: "x")


class TestMissingIndex:
    """For a missing index Firestore returns FAILED_PRECONDITION, as for a lost race."""

    @pytest.fixture
    def rescue(self, cloud, documents, objects):
        """Return a rescue on a Firestore without the index."""
        cloud.firestore.faults.add(
            Fault(method="RunQuery", error="FAILED_PRECONDITION", message="The query requires an index")
        )
        bench, clock = Bench(cloud, documents, objects), SystemClock()
        breaker = CircuitBreaker(probes={"firestore": lambda: None})
        return Rescue(
            ledger=StepLedger(
                client=documents,
                clock=clock,
                terms=TERMS,
                heartbeats=Heartbeats(client=documents, terms=TERMS, clock=clock),
            ),
            pipeline=bench.pipeline(),
            breaker=breaker,
            drain=Drain(),
            interval_seconds=60,
        )

    def test_it_is_logged_once_with_its_fix(self, rescue, log_lines):
        """A missing index is logged once with the file to deploy and the consequence."""
        for _ in range(3):
            rescue._search_safely()
        (line,) = log_lines()
        assert (line["event"], line["severity"]) == ("index_missing", "ERROR")
        assert "deploy/firestore.indexes.json" in line["message"]
        assert "The query requires an index" in line["firestore"]

    def test_it_is_no_outage(self, rescue):
        """A missing index is no outage, however often it occurs."""
        for _ in range(3 * FAILURES_TO_OPEN):
            rescue._search_safely()
        assert not rescue._breaker.is_open

    def test_it_is_tried_again_each_time(self, rescue, cloud):
        """Each scan tries the query again, so that the rescue starts when the index is deployed."""
        for _ in range(2):
            with pytest.raises(IndexMissing):
                rescue.search()
        cloud.firestore.faults.clear()
        rescue.search()


class TestIndexFile:
    """The index file for `firebase deploy --only firestore:indexes`."""

    @pytest.fixture
    def overrides(self):
        """Return the file's field overrides by collection group and field."""
        content = json.loads((ROOT / "deploy" / "firestore.indexes.json").read_text(encoding="utf-8"))
        assert content["indexes"] == []
        return {(entry["collectionGroup"], entry["fieldPath"]): entry for entry in content["fieldOverrides"]}

    def test_it_names_the_fields_that_the_code_writes_and_queries(self, overrides, cloud, documents):
        """The file names the fields that the code writes and queries."""
        assert set(overrides) == {(LEASES, "expiresAt"), (FLOW_RUNS, "steps")}
        assert "expiresAt" in lease_of().to_document()
        assert all(name.startswith("steps.") for name in build_claim_update("s"))
        asked = []
        cloud.firestore.faults.add(Fault(method="RunQuery", before=asked.append))
        list(expired_leases(documents, before=NOON))
        query = asked[0].structured_query
        assert [(source.collection_id, source.all_descendants) for source in query.from_] == [(LEASES, True)]
        assert query.where.field_filter.field.field_path == "expiresAt"
        ascending = types.StructuredQuery.Direction.ASCENDING
        assert [(order.field.field_path, order.direction) for order in query.order_by] == [
            ("expiresAt", ascending)
        ]

    def test_leases_are_found_over_all_runs_by_their_end(self, overrides):
        """Leases are indexed over all runs by expiry, and the default indexes are listed again."""
        indexes = overrides[LEASES, "expiresAt"]["indexes"]
        assert sorted((index["queryScope"], index["order"]) for index in indexes) == [
            ("COLLECTION", "ASCENDING"),
            ("COLLECTION", "DESCENDING"),
            ("COLLECTION_GROUP", "ASCENDING"),
        ]

    def test_the_steps_of_a_run_are_not_indexed(self, overrides):
        """The steps of a run are not indexed, because of the limit of index entries per document."""
        assert overrides[FLOW_RUNS, "steps"]["indexes"] == []
