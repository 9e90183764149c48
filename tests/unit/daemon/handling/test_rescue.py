"""The rescue's own thread: when it looks, what ends a look, and that only the drain ends the thread."""

from __future__ import annotations

import json
import queue
import threading

import pytest
from google.cloud.firestore_v1 import types

from daemon.handling.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from daemon.handling.rescue import Rescue
from daemon.lifecycle.drain import Drain
from localcloud import Fault
from tests.support.fakes import NOON, RUN_ID, STEP_ID, HandClock, lease_of, scope_of
from tests.support.pipeline_bench import TERMS, Bench
from tests.support.process.daemons import ROOT
from worker_chart_export.errors import BackendRefused, BackendUnavailable, IndexMissing, Interrupted
from worker_chart_export.ledger.decisions import FLOW_RUNS, build_claim_update
from worker_chart_export.ledger.expired_leases import expired_leases
from worker_chart_export.ledger.heartbeats import Heartbeats
from worker_chart_export.ledger.lease import LEASES
from worker_chart_export.ledger.step_ledger import StepLedger
from worker_chart_export.timing import SystemClock

SECONDS = 10


class Ledger:
    """Finds pages of leases or raises an error, search by search; after the last one it finds nothing."""

    terms = TERMS

    def __init__(self, *looks):
        self.looks = queue.SimpleQueue()
        for look in looks:
            self.looks.put(look)
        self.looked = threading.Semaphore(0)

    def expired_leases(self, *, before):
        """The next look's pages."""
        assert before
        try:
            found = self.looks.get_nowait()
        except queue.Empty:
            found = []
        self.looked.release()
        if isinstance(found, Exception):
            raise found
        yield from found

    def wait_for_looks(self, count):
        """Until it was asked so often."""
        for _ in range(count):
            assert self.looked.acquire(timeout=SECONDS)


class Rescuing:
    """A rescue that searches all the time, or only when called, in a scripted ledger."""

    def __init__(self, *looks, interval=0.01):
        self.ledger = Ledger(*looks)
        self.drain = Drain()
        self.breaker = CircuitBreaker(probes={"firestore": lambda: None})
        self.ticks = threading.Semaphore(0)
        self.rescue = Rescue(
            ledger=self.ledger,
            pipeline=None,
            breaker=self.breaker,
            drain=self.drain,
            clock=HandClock(),
            interval_seconds=interval,
            on_tick=self.ticks.release,
        )

    def thread(self):
        """Its thread, if there is one."""
        return next((thread for thread in threading.enumerate() if thread.name == "rescue"), None)

    def drained(self):
        """Begin the drain; whether the thread ended."""
        thread = self.thread()
        self.drain.start()
        if thread:
            thread.join(SECONDS)
        return thread is None or not thread.is_alive()


@pytest.mark.parametrize(
    "error",
    [
        BackendUnavailable("firestore", "503"),
        BackendRefused("firestore", "403"),
        IndexMissing("no index"),
        Interrupted("stopped"),
        KeyError("a mistake"),
    ],
)
def test_it_looks_again_whatever_a_look_ended_in(error):
    """And ends with the drain."""
    rescuing = Rescuing(error, error)
    rescuing.rescue.start()
    rescuing.ledger.wait_for_looks(4)
    assert rescuing.drained()


def test_it_says_that_it_is_alive_each_time_it_comes_round_and_for_each_lease():
    """Many leases make a long look."""
    rescuing = Rescuing([[]], interval=0.01)
    rescuing.rescue.start()
    for _ in range(3):
        assert rescuing.ticks.acquire(timeout=SECONDS)
    assert rescuing.drained()


def test_it_comes_round_but_does_not_look_while_intake_is_paused():
    """A backend is away; the thread is alive all the same."""
    rescuing = Rescuing()
    for _ in range(FAILURES_TO_OPEN):
        rescuing.breaker.record_failure("firestore")
    rescuing.rescue.start()
    for _ in range(5):
        assert rescuing.ticks.acquire(timeout=SECONDS)
    assert rescuing.drained()
    assert not rescuing.ledger.looked.acquire(blocking=False)


def test_one_that_starts_while_the_worker_drains_never_looks():
    """A stop was requested during the start."""
    rescuing = Rescuing(interval=0.0)
    rescuing.drain.start()
    rescuing.rescue.start()
    thread = rescuing.thread()
    assert thread is None or thread.join(SECONDS) is None
    assert not rescuing.ledger.looked.acquire(blocking=False)


def test_its_outages_count_for_the_gate_and_its_answers_too(log_lines):
    """A look that found its leases is an answer of Firestore."""
    away = BackendUnavailable("firestore", "503")
    looks = [*[away] * (FAILURES_TO_OPEN - 1), [[]], *[away] * (FAILURES_TO_OPEN - 1)]
    rescuing = Rescuing(*looks, away)
    for _ in looks:
        rescuing.rescue._search_safely()
        assert not rescuing.breaker.is_open
    rescuing.rescue._search_safely()
    assert rescuing.breaker.unavailable_backends == ("firestore",)
    assert [line["event"] for line in log_lines()].count("backend_unavailable") == len(looks)


def test_a_step_that_the_drain_does_not_know_of_yet_is_not_begun():
    """The drain began between the search and the work, and may not wait for the step."""
    rescuing = Rescuing()
    rescuing.rescue._pipeline = Pipeline()
    rescuing.rescue.start()
    rescuing.drain.start()
    rescuing.rescue._work(RUN_ID, STEP_ID, None)
    assert rescuing.rescue._pipeline.worked == []


class Pipeline:
    """Notes what it is given."""

    def __init__(self):
        self.worked = []

    def new_scope(self):
        """A budget."""
        return scope_of()

    def run(self, *arguments, **_more):
        """Note it."""
        self.worked.append(arguments)


class TestMissingIndex:
    """Firestore says FAILED_PRECONDITION, as for a lost race, but it is none."""

    @pytest.fixture
    def rescue(self, cloud, documents, objects):
        """On a cloud whose Firestore has no such index."""
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
            clock=clock,
            interval_seconds=60,
        )

    def test_it_is_logged_once_with_what_to_do(self, rescue, log_lines):
        """The file to deploy, and what happens until then."""
        for _ in range(3):
            rescue._search_safely()
        (line,) = log_lines()
        assert (line["event"], line["severity"]) == ("index_missing", "ERROR")
        assert "deploy/firestore.indexes.json" in line["message"]
        assert "The query requires an index" in line["firestore"]

    def test_it_is_no_outage(self, rescue):
        """However often it is met."""
        for _ in range(3 * FAILURES_TO_OPEN):
            rescue._search_safely()
        assert not rescue._breaker.is_open

    def test_it_is_met_again_each_time(self, rescue, cloud):
        """So the rescue works as soon as the index exists."""
        for _ in range(2):
            with pytest.raises(IndexMissing):
                rescue.search()
        cloud.firestore.faults.clear()
        rescue.search()


class TestIndexFile:
    """What is deployed for the query to work, in the form of `firebase deploy --only firestore:indexes`."""

    @pytest.fixture
    def overrides(self):
        """The file's field overrides, by collection group and field."""
        content = json.loads((ROOT / "deploy" / "firestore.indexes.json").read_text(encoding="utf-8"))
        assert content["indexes"] == []
        return {(entry["collectionGroup"], entry["fieldPath"]): entry for entry in content["fieldOverrides"]}

    def test_it_speaks_of_the_fields_that_the_code_writes_and_asks_for(self, overrides, cloud, documents):
        """Neither a lease's end nor a run's steps are called otherwise somewhere."""
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
        """Oldest first. An override replaces the indexes that a field has anyway, so these are named too."""
        indexes = overrides[LEASES, "expiresAt"]["indexes"]
        assert sorted((index["queryScope"], index["order"]) for index in indexes) == [
            ("COLLECTION", "ASCENDING"),
            ("COLLECTION", "DESCENDING"),
            ("COLLECTION_GROUP", "ASCENDING"),
        ]

    def test_the_steps_of_a_run_are_not_indexed(self, overrides):
        """A run of many steps would come to the limit of index entries for a document."""
        assert overrides[FLOW_RUNS, "steps"]["indexes"] == []
