"""The two functions that others call: what they write, and that only one caller wins."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from google.api_core.exceptions import FailedPrecondition

from tests.support.fakes import RUN_ID, STEP_ID, chart_step, run_document
from tests.support.ledger.claim_calls import RUNNING, Book
from tests.support.ledger.samples import ERROR, FINISHED, MANIFEST, offer_of
from tests.support.process.daemons import ROOT
from tests.unit.worker_chart_export.ledger.test_step_patches import ODD_STEP_IDS
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.ledger.run_snapshot import lease_reference, read_lease, read_run
from worker_chart_export.orchestration import FinalizeResult, Reason, claim_step_transaction, finalize_step
from worker_chart_export.timing import SystemClock

IMPORT = """
import logging, os, signal, sys, threading, warnings
import google.cloud.firestore, prometheus_client.metrics, structlog

def state():
    return [
        *(sys.excepthook, sys.unraisablehook, threading.excepthook, threading.active_count()),
        *(warnings.showwarning, list(warnings.filters), logging.root.level, list(logging.root.handlers)),
        *(structlog.is_configured(), dict(os.environ)),
        *(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)),
        *(prometheus_client.metrics._use_created, len(prometheus_client.REGISTRY._collector_to_names)),
    ]

before = state()
import worker_chart_export.orchestration
assert state() == before, (state(), before)
"""
MARKS = [f"2025-12-15T12:00:0{number}Z" for number in range(3)]


@pytest.fixture
def shared_book(shared_documents, new_run_id):
    """Create a run on the session's cloud."""
    return Book(shared_documents, new_run_id).put()


def test_the_functions_take_the_contract_s_arguments():
    """The functions take the contract's keyword-only arguments, `lease` among them."""
    for call in (claim_step_transaction, finalize_step):
        parameters = inspect.signature(call).parameters
        assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
        assert parameters["lease"].default is None


def test_an_import_changes_nothing_in_the_process():
    """An application that imports the library keeps its logging, metrics, hooks and signals."""
    subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, check=True)


class TestCommitted:
    """The functions with Google's client on Firestore."""

    @pytest.mark.parametrize("step_id", ODD_STEP_IDS)
    def test_odd_step_ids_are_claimed_and_finalized_in_their_place(self, shared_book, step_id):
        """Step ids with unusual characters are claimed and finalized, and all other steps stay."""
        shared_book.put({step_id: chart_step(dependsOn=[]), "other": chart_step()})
        assert shared_book.claim(step_id).claimed
        assert shared_book.step(step_id)["status"] == "RUNNING"
        assert shared_book.succeed(step_id).updated
        steps = shared_book.reference.get().to_dict()["steps"]
        assert set(steps) == {step_id, "other"}
        assert steps[step_id]["outputs"]["gcs_uri"] == MANIFEST
        assert steps["other"] == chart_step()

    def test_a_claim_changes_nothing_else(self, shared_book):
        """A claim changes nothing else in the step or the run."""
        assert shared_book.claim().claimed
        expected = run_document()
        expected["steps"][STEP_ID]["status"] = "RUNNING"
        assert shared_book.reference.get().to_dict() == expected

    def test_siblings_in_outputs_survive_a_success_and_a_stale_error_does_not(self, shared_book):
        """A success keeps other outputs and removes an old error."""
        shared_book.put(
            {
                STEP_ID: chart_step(
                    status="RUNNING", outputs={"others": [1]}, error={"code": "OLD", "message": "old"}
                )
            }
        )
        assert shared_book.succeed() == FinalizeResult(updated=True, status="SUCCEEDED")
        assert shared_book.step() == chart_step(
            status="SUCCEEDED",
            finishedAt=FINISHED,
            outputs={"others": [1], "outputsManifestGcsUri": MANIFEST, "gcs_uri": MANIFEST},
        )

    def test_a_failure_keeps_the_outputs(self, shared_book):
        """A failure keeps the outputs, also those of an earlier success."""
        shared_book.put({STEP_ID: chart_step(status="RUNNING", outputs={"gcs_uri": "gs://old"})})
        assert shared_book.fail().updated
        step = shared_book.step()
        assert (step["status"], step["error"]["code"]) == ("FAILED", "CHART_API_FAILED")
        assert step["outputs"] == {"gcs_uri": "gs://old"}

    def test_a_second_claim_and_a_second_finalize_change_nothing(self, shared_book):
        """A second claim and a second finalize change nothing."""
        assert [shared_book.claim().claimed for _ in range(2)] == [True, False]
        assert [shared_book.succeed(finished_at=at).updated for at in MARKS[:2]] == [True, False]
        assert shared_book.step()["finishedAt"] == MARKS[0]

    def test_the_loser_of_a_claim_gets_the_reason(self, shared_book):
        """The loser of a claim gets the reason that the step is RUNNING."""
        shared_book.claim()
        again = shared_book.claim()
        assert (again.claimed, again.status, again.reason) == (False, "RUNNING", Reason.STEP_RUNNING)

    def test_a_missing_run_is_no_error(self, shared_documents):
        """A missing run is no error and is not created."""
        absent = Book(shared_documents, "absent")
        assert absent.claim().reason == Reason.RUN_MISSING
        assert absent.succeed().reason == Reason.RUN_MISSING
        assert read_run(shared_documents, "absent", SystemClock()).run is None
        assert absent.reference.get().exists is False

    def test_racing_claims_have_one_winner(self, shared_book):
        """Of simultaneous claims exactly one wins, in every round."""
        for _ in range(15):
            shared_book.put()
            start = threading.Barrier(4)

            def race(start: threading.Barrier = start) -> bool:
                start.wait()
                return shared_book.claim().claimed

            with ThreadPoolExecutor(4) as pool:
                assert sorted(pool.map(lambda _n: race(), range(4))) == [False, False, False, True]

    def test_racing_finalizes_have_one_winner(self, shared_book):
        """Of simultaneous finalizes exactly one wins, and its result is stored."""
        for _ in range(15):
            shared_book.put(RUNNING)
            start = threading.Barrier(3)

            def race(mark: str, start: threading.Barrier = start) -> str | None:
                start.wait()
                return mark if shared_book.succeed(finished_at=mark).updated else None

            with ThreadPoolExecutor(3) as pool:
                won = [mark for mark in pool.map(race, MARKS) if mark]
            assert won == [shared_book.step()["finishedAt"]]

    def test_steps_of_one_run_don_t_lose_each_other_s_writes(self, shared_book):
        """Concurrent writes to several steps of one run are all kept."""
        names = [f"s{number}" for number in range(8)]
        shared_book.put({name: chart_step(dependsOn=[]) for name in names})
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda name: shared_book.claim(name).claimed, names))
            assert all(pool.map(lambda name: shared_book.succeed(name).updated, names))
        assert {shared_book.step(name)["status"] for name in names} == {"SUCCEEDED"}

    @pytest.mark.parametrize(
        ("status", "manifest", "error"),
        [
            ("SUCCEEDED", None, None),
            ("SUCCEEDED", None, ERROR),
            ("FAILED", MANIFEST, None),
            ("READY", MANIFEST, ERROR),
        ],
    )
    def test_a_status_without_its_required_argument_is_refused(self, status, manifest, error):
        """A status without its required argument raises an error before anything is read or written."""
        with pytest.raises(ValueError, match=r"expected SUCCEEDED with"):
            finalize_step(
                client=None,
                run_id=RUN_ID,
                step_id=STEP_ID,
                status=status,
                finished_at=FINISHED,
                outputs_manifest_gcs_uri=manifest,
                error=error,
            )

    @pytest.mark.parametrize(
        "finished_at",
        [
            "yesterday",
            "",
            "2025-12-15",
            "2025-12-15T10:26:15",
            "2025-13-15T10:26:15Z",
            "2025-12-15T10:26:15Z\n",
            None,
            1765794375,
        ],
    )
    def test_a_time_that_is_not_rfc_3339_is_refused(self, finished_at):
        """A finishing time that readers of the run could not parse is refused before anything is read."""
        with pytest.raises(ValueError, match="finished_at: expected RFC 3339"):
            Book(None).succeed(finished_at=finished_at)

    @pytest.mark.parametrize(
        "finished_at",
        ["2025-12-15T10:26:15Z", "2025-12-15T10:26:15.123456789+02:00", "2025-12-15t10:26:15z"],
    )
    def test_every_form_of_rfc_3339_is_taken(self, shared_book, finished_at):
        """Fractions, offsets and lower case are RFC 3339 too; the text is stored as it is."""
        shared_book.put(RUNNING)
        assert shared_book.succeed(finished_at=finished_at).updated
        assert shared_book.step()["finishedAt"] == finished_at

    @pytest.mark.parametrize("uri", ["https://b/m", "gs://", "gs:///m", "b/m", "gs://b/m\nm", ""])
    def test_a_manifest_that_is_no_gs_uri_is_refused(self, uri):
        """A manifest whose URI readers of the run would refuse is refused before anything is read."""
        with pytest.raises(ValueError, match="outputs_manifest_gcs_uri: expected gs://bucket/object"):
            Book(None).succeed(uri=uri)

    def test_a_finalize_without_the_lease_that_another_worker_holds_is_fenced(self, shared_book):
        """A finalize without a lease changes nothing while a worker holds the step."""
        offer = offer_of()
        held = {"client": shared_book.client, "run_id": shared_book.run_id, "step_id": STEP_ID}
        assert claim_step_transaction(**held, lease=offer).claimed
        assert shared_book.succeed() == FinalizeResult(updated=False, status="RUNNING", reason=Reason.FENCED)
        assert shared_book.step()["status"] == "RUNNING"
        lease = read_lease(shared_book.client, shared_book.run_id, STEP_ID)
        assert lease is not None
        assert lease.lease.token == offer.token

    def test_a_finalize_without_a_lease_deletes_an_expired_one(self, shared_book):
        """A finalize without a lease is written once the lease of the step has expired, and deletes it."""
        claim_step_transaction(
            client=shared_book.client, run_id=shared_book.run_id, step_id=STEP_ID, lease=offer_of()
        )
        lease = lease_reference(shared_book.client, shared_book.run_id, STEP_ID)
        lease.update({"expiresAt": datetime(2020, 1, 1, tzinfo=UTC)})
        assert shared_book.succeed().updated
        assert not lease.get().exists

    def test_a_result_in_a_log_does_not_show_the_run(self, shared_book):
        """The text of a claim's result has no run in it, which may hold a megabyte."""
        result = shared_book.claim()
        assert result.run is not None
        assert repr(result) == "ClaimResult(claimed=True, status='RUNNING', reason=None, taken_over=None)"


@pytest.mark.parametrize("run_id", ["r1/steps/s1", "", "..", "__r__", "a b", None])
def test_a_run_id_that_can_not_be_one_is_refused(run_id):
    """A run id is checked before it becomes a part of a path, which could be that of another document."""
    client = MinimalClient(run_document({STEP_ID: chart_step(dependsOn=[])}))
    with pytest.raises(ValueError, match="runId: expected 1-128 characters"):
        claim_step_transaction(client=client, run_id=run_id, step_id=STEP_ID)
    assert client.updates == []


class MinimalClient:
    """An in-memory client that can only get and update one document at a time."""

    def __init__(self, document):
        self.document_fields = document
        self.updates = []

    def collection(self, _name):
        """Return the only collection."""
        return self

    def document(self, _document_id):
        """Return the only document."""
        return self

    def get(self):
        """Return a snapshot without `exists` and times."""
        return SimpleNamespace(to_dict=lambda: self.document_fields)

    def update(self, patch):
        """Note the patch."""
        self.updates.append(patch)


class GuardedClient(MinimalClient):
    """A minimal client with preconditions, as in the tests of the Cloud Function.

    Args:
        document: The document.
        update_time: The update time of each snapshot.
        races: How many updates fail because another writer was first.
    """

    def __init__(self, document, *, update_time="ts1", races=0):
        super().__init__(document)
        self.update_time = update_time
        self.races = races
        self.options = []

    def write_option(self, *, last_update_time):
        """Return the precondition."""
        return f"unchanged since {last_update_time}"

    def get(self):
        """Return a snapshot with an update time."""
        return SimpleNamespace(to_dict=lambda: self.document_fields, update_time=self.update_time)

    def update(self, patch, option=None):
        """Note the patch and its precondition, or fail as after a lost race."""
        self.options.append(option)
        if len(self.options) <= self.races:
            raise FailedPrecondition("conflict")
        super().update(patch)


class TestGuardedClient:
    """The functions with a client that has preconditions, but no commits of several documents."""

    def test_the_update_names_the_update_time_that_was_read(self):
        """The update has the precondition that the run is unchanged since it was read."""
        client = GuardedClient(run_document({STEP_ID: chart_step(dependsOn=[])}))
        assert claim_step_transaction(client=client, run_id=RUN_ID, step_id=STEP_ID).claimed
        assert client.updates == [{f"steps.{STEP_ID}.status": "RUNNING"}]
        assert client.options == ["unchanged since ts1"]

    def test_without_an_update_time_there_is_no_precondition(self):
        """A snapshot without an update time gives an update without a precondition."""
        client = GuardedClient(run_document({STEP_ID: chart_step(dependsOn=[])}), update_time=None)
        assert claim_step_transaction(client=client, run_id=RUN_ID, step_id=STEP_ID).claimed
        assert client.options == [None]

    @pytest.mark.usefixtures("short_backoff")
    def test_a_lost_race_is_decided_again_from_a_new_read(self):
        """After a lost race the run is read again; in the end the caller gets an error, and no claim."""
        document = run_document({STEP_ID: chart_step(dependsOn=[])})
        lost_twice, always_lost = GuardedClient(document, races=2), GuardedClient(document, races=99)
        assert claim_step_transaction(client=lost_twice, run_id=RUN_ID, step_id=STEP_ID).claimed
        assert len(lost_twice.options) == 3
        with pytest.raises(BackendUnavailable, match="contended"):
            claim_step_transaction(client=always_lost, run_id=RUN_ID, step_id=STEP_ID)
        assert len(always_lost.options) == 5


class TestMinimalClient:
    """The functions with a client without preconditions, read times and leases, as in the seed scenarios."""

    def test_a_claim_takes_no_lease(self):
        """A claim with a minimal client takes no lease, because the client has none."""
        client = MinimalClient(run_document({STEP_ID: chart_step(dependsOn=[])}))
        offer = offer_of()
        assert claim_step_transaction(client=client, run_id=RUN_ID, step_id=STEP_ID, lease=offer).claimed
        assert client.updates == [{f"steps.{STEP_ID}.status": "RUNNING"}]

    def test_a_refusal_writes_nothing(self):
        """A refused claim of a RUNNING step writes nothing."""
        client = MinimalClient(run_document(RUNNING))
        offer = offer_of()
        refused = claim_step_transaction(client=client, run_id=RUN_ID, step_id=STEP_ID, lease=offer)
        assert (refused.claimed, refused.reason) == (False, Reason.STEP_RUNNING)
        assert client.updates == []

    def test_a_missing_run_is_no_error(self):
        """A missing run is no error, as with Google's client."""
        client = MinimalClient(None)
        missing = claim_step_transaction(client=client, run_id=RUN_ID, step_id=STEP_ID)
        assert missing.reason == Reason.RUN_MISSING
