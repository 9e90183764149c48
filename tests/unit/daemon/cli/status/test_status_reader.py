"""The repeated reads of `status` on the embedded Firestore and Storage, until a stop signal."""

from __future__ import annotations

import json
import signal
import threading
from datetime import timedelta

import pytest

from daemon.cli.status.reader import AGAIN_AFTER_SECONDS, RunReader, until_stopped
from daemon.lifecycle.signals import STOP_SIGNALS
from daemon.reports.report import Hold
from localcloud.faults import Fault
from tests.support.fakes import BUCKET
from tests.support.pipeline_bench import LeapingClock
from tests.support.run_reports import NOW, RUN_ID, STEP_ID, URI, chart_step, lease, manifest
from worker_chart_export.errors import BackendRefused, RunInvalid
from worker_chart_export.ledger.lease import LEASES


class Reading:
    """A reader on the embedded cloud that counts the clients of Cloud Storage it creates."""

    def __init__(self, documents, objects, bucket=BUCKET):
        self.clock = LeapingClock()
        self.objects = objects
        self.documents = documents
        self.opened = 0
        self.reader = RunReader(
            documents=documents, open_objects=self._open, bucket=bucket, run_id=RUN_ID, clock=self.clock
        )

    def _open(self):
        self.opened += 1
        if self.objects is None:
            raise BackendRefused("storage", "no credentials")
        return self.objects

    def put(self, steps, leases=None):
        """Store the run and its leases."""
        run = self.documents.document(f"flow_runs/{RUN_ID}")
        run.set({"status": "RUNNING", "steps": steps})
        for step_id, held in (leases or {}).items():
            run.collection(LEASES).document(step_id).set(held.to_document())

    def put_object(self, name, content):
        """Store an object in the bucket."""
        self.objects.bucket(BUCKET).blob(name).upload_from_string(content)


def test_a_missing_run_reads_nothing_else(documents, objects):
    """A missing run is None and reads nothing from Cloud Storage."""
    reading = Reading(documents, objects)
    assert reading.reader.read() is None
    assert reading.opened == 0


def test_a_run_without_a_map_of_steps_is_an_error(documents, objects):
    """A run without a map of steps is an error."""
    reading = Reading(documents, objects)
    documents.document(f"flow_runs/{RUN_ID}").set({"steps": 7})
    with pytest.raises(RunInvalid):
        reading.reader.read()


def test_a_status_of_another_kind_hides_no_other_step(documents, objects):
    """A step whose status is no text does not hide the other steps."""
    reading = Reading(documents, objects)
    reading.put({"list": chart_step(["X"]), "map": chart_step({"X": 1}), STEP_ID: chart_step("READY")})
    assert [step.status for step in reading.reader.read().steps] == ["READY", "['X']", "{'X': 1}"]


def test_leases_are_judged_by_the_server_s_clock(documents, objects, server_time):
    """Leases are compared with the server's clock, because this machine's may be wrong."""
    server_time.set(NOW)
    reading = Reading(documents, objects)
    steps = {
        STEP_ID: chart_step("RUNNING"),
        "without": chart_step("RUNNING"),
        "done": chart_step("SUCCEEDED"),
    }
    reading.put(steps, {STEP_ID: lease(), "done": lease()})
    shown = {step.step_id: step.holding for step in reading.reader.read().steps}
    assert {name: held.hold for name, held in shown.items()} == {
        STEP_ID: Hold.LIVE,
        "without": Hold.UNLEASED,
        "done": Hold.LEFT_OVER,
    }
    assert shown[STEP_ID].left_seconds == pytest.approx(95, abs=5)


@pytest.mark.parametrize(
    ("before", "after", "holds"),
    [
        (("READY", {}), ("RUNNING", {STEP_ID: lease()}), Hold.LIVE),
        (("RUNNING", {STEP_ID: lease()}), ("SUCCEEDED", {}), Hold.NONE),
    ],
    ids=["claimed", "finalized"],
)
def test_a_step_that_changes_owners_during_a_read_is_not_seen_without_its_lease(
    documents, objects, cloud, server_time, before, after, holds
):
    """Run and leases are of one moment, so a step is never seen without its new lease."""
    server_time.set(NOW)
    reading = Reading(documents, objects)

    def put(status, leases):
        documents.document(f"flow_runs/{RUN_ID}/{LEASES}/{STEP_ID}").delete()
        reading.put({STEP_ID: chart_step(status)}, leases)

    put(*before)
    cloud.firestore.faults.add(Fault(method="BatchGetDocuments", times=1, before=lambda _: put(*after)))
    (step,) = reading.reader.read().steps
    assert (step.status, step.holding.hold) == (after[0], holds)


def test_charts_of_a_running_step_are_counted_in_the_bucket_now_and_then(documents, objects):
    """The charts of a RUNNING step's current claim are counted in the bucket from time to time."""
    reading = Reading(documents, objects)
    reading.put({STEP_ID: chart_step("RUNNING")}, {STEP_ID: lease()})
    prefix = f"charts/{RUN_ID}/{STEP_ID}/{NOW - timedelta(seconds=65):%Y%m%d-%H%M%S}_IBM_1d_"
    reading.put_object(f"{prefix}ctpl_a.png", b"png")
    reading.put_object(f"charts/{RUN_ID}/{STEP_ID}/20240101-000000_IBM_1d_ctpl_a.png", b"png")
    assert reading.reader.read().steps[0].charts.done == 1
    reading.put_object(f"{prefix}ctpl_b.png", b"png")
    assert reading.reader.read().steps[0].charts.done == 1
    reading.clock.leap(AGAIN_AFTER_SECONDS)
    assert reading.reader.read().steps[0].charts.done == 2
    assert reading.opened == 1


def test_without_a_bucket_running_steps_are_not_counted(documents, objects):
    """Without a bucket charts of RUNNING steps are not counted, and the missing setting is named."""
    reading = Reading(documents, objects, bucket=None)
    reading.put({STEP_ID: chart_step("RUNNING")}, {STEP_ID: lease()})
    charts = reading.reader.read().steps[0].charts
    assert (charts.done, charts.unknown_because) == (None, "set CHARTS_BUCKET to count them")


def test_a_manifest_is_read_once(documents, objects, cloud):
    """A manifest is read once for all reads of its run."""
    reading = Reading(documents, objects, bucket=None)
    reading.put({STEP_ID: chart_step("SUCCEEDED", outputs={"outputsManifestGcsUri": URI})})
    reading.put_object(URI.removeprefix(f"gs://{BUCKET}/"), json.dumps(manifest()))
    downloads = []
    cloud.storage.faults.add(Fault(match="manifest.json", before=downloads.append))
    for _ in range(3):
        assert reading.reader.read().steps[0].charts.done == 1
        reading.clock.leap(AGAIN_AFTER_SECONDS)
    assert len(downloads) == 1


@pytest.mark.parametrize(
    ("uri", "content", "text"),
    [
        (URI, None, "no such object"),
        (URI, b"{", "not JSON"),
        (URI, b"[]", "schema"),
        (URI, b"x" * 70000, "more than 65536 bytes"),
        ("file:///etc/passwd", None, "expected gs://bucket/object"),
        (f"gs://{BUCKET}", None, "expected gs://bucket/object"),
    ],
)
def test_a_manifest_that_cant_be_read_leaves_the_rest(documents, objects, uri, content, text):
    """A manifest that can't be read gives its reason in the step's row; the rest is shown."""
    reading = Reading(documents, objects)
    reading.put({STEP_ID: chart_step("SUCCEEDED", outputs={"gcs_uri": uri})})
    if content is not None:
        reading.put_object(URI.removeprefix(f"gs://{BUCKET}/"), content)
    charts = reading.reader.read().steps[0].charts
    assert charts.done is None
    assert text in charts.unknown_because


def test_an_unavailable_storage_is_a_fact_too(documents, objects, cloud):
    """An unavailable Storage is reported after a short time."""
    reading = Reading(documents, objects)
    reading.put({STEP_ID: chart_step("SUCCEEDED", outputs={"gcs_uri": URI})})
    cloud.storage.stop()
    charts = reading.reader.read().steps[0].charts
    assert charts.done is None
    assert charts.unknown_because.startswith("storage is ")


def test_no_credentials_for_storage_are_a_fact_too(documents):
    """Missing credentials for Storage are reported, because Firestore may still be allowed."""
    reading = Reading(documents, None)
    reading.put({STEP_ID: chart_step("SUCCEEDED", outputs={"gcs_uri": URI})})
    assert "no credentials" in reading.reader.read().steps[0].charts.unknown_because


@pytest.fixture
def _blocked_stop_signals():
    """Block the stop signals as `status --watch` does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.usefixtures("_blocked_stop_signals")
def test_a_stop_signal_ends_a_hanging_read():
    """A stop signal also ends a read that hangs."""
    begun, never = threading.Event(), threading.Event()

    def read_once():
        begun.set()
        never.wait(30)

    threading.Thread(
        target=lambda: begun.wait(10) and signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    ).start()
    assert list(until_stopped(read_once, every_seconds=30)) == []
    never.set()


@pytest.mark.usefixtures("_blocked_stop_signals")
def test_reads_are_repeated_until_a_stop_signal():
    """Reads are repeated until a stop signal, and their errors are raised in the consumer."""
    counted = iter(range(100))
    seen = []
    for number in until_stopped(lambda: next(counted), every_seconds=0.01):
        seen.append(number)
        if number == 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
    assert seen == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(until_stopped(lambda: 1 / 0, every_seconds=0.01))
