"""One step from claim to finalize, on the embedded Firestore and Storage."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from localcloud import Fault
from tests.unit.doubles import (
    BUCKET,
    RUN_ID,
    STEP_ID,
    HandClock,
    ScriptedProvider,
    chart_step,
    ohlcv_step,
    png_bytes,
    run_document,
    template_document,
)
from worker_chart_export.artifacts import ArtifactStore
from worker_chart_export.clock import SystemClock
from worker_chart_export.errors import (
    BackendUnavailable,
    ChartApiFailed,
    Interrupted,
    OhlcvUnavailable,
)
from worker_chart_export.ledger import StepLedger
from worker_chart_export.outcome import OutcomeKind
from worker_chart_export.pipeline import PipelineLimits, StepPipeline
from worker_chart_export.templates import TemplateStore

NAMES = ("ctpl_a", "ctpl_b", "ctpl_c", "ctpl_d", "ctpl_e")
MANIFEST_NAME = f"charts/{RUN_ID}/{STEP_ID}/manifest.json"
MANIFEST_URI = f"gs://{BUCKET}/{MANIFEST_NAME}"


class Bench:
    """A pipeline on a cloud of its own, and looks at what it left there."""

    def __init__(self, cloud, documents, objects):
        self.cloud = cloud
        self.documents = documents
        self.objects = objects
        self.provider = ScriptedProvider()
        self.run_reference = documents.collection("flow_runs").document(RUN_ID)
        for name in NAMES:
            documents.collection("chart_templates").document(name).set(template_document())

    def pipeline(self, *, concurrency=4, seconds=30.0, max_png_bytes=262144, clock=None):
        """A pipeline by these limits."""
        clock = clock or SystemClock()
        return StepPipeline(
            ledger=StepLedger(client=self.documents, clock=clock),
            templates=TemplateStore(client=self.documents, cache_seconds=60, clock=clock),
            provider=self.provider,
            artifacts=ArtifactStore(client=self.objects, bucket=BUCKET),
            limits=PipelineLimits(
                request_concurrency=concurrency,
                step_timeout_seconds=seconds,
                timezone="Etc/UTC",
                max_png_bytes=max_png_bytes,
            ),
            clock=clock,
        )

    def put(self, *names, min_images=None, **step):
        """Write the run anew; its step asks for the templates named."""
        inputs = {"requests": [{"chartTemplateId": name} for name in names]}
        if min_images is not None:
            inputs["minImages"] = min_images
        self.run_reference.set(
            run_document({STEP_ID: chart_step(dependsOn=[], inputs=inputs) | step, "other": ohlcv_step()})
        )

    def run(self, **limits):
        """Work the step."""
        pipeline = self.pipeline(**limits)
        return pipeline.run(RUN_ID, STEP_ID, budget=pipeline.new_budget())

    def step(self):
        """The step as it is now."""
        return self.run_reference.get().to_dict()["steps"][STEP_ID]

    def manifest(self):
        """The manifest, read."""
        return json.loads(self.objects.bucket(BUCKET).blob(MANIFEST_NAME).download_as_bytes())

    def names(self):
        """The names of all objects."""
        return sorted(blob.name for blob in self.objects.list_blobs(BUCKET))


@pytest.fixture
def bench(cloud, documents, objects):
    """Five templates, no run yet."""
    return Bench(cloud, documents, objects)


def _failing(code_words="no picture"):
    def fail(_request):
        raise ChartApiFailed(code_words, httpStatus=422)

    return fail


def _told(manifest):
    return (
        [entry["chartTemplateId"] for entry in manifest["items"]],
        [entry["request"]["chartTemplateId"] for entry in manifest["failures"]],
    )


class TestSuccess:
    """Charts, manifest, SUCCEEDED."""

    def test_a_step_is_exported_whole(self, bench):
        """The step names the manifest, the manifest names the charts, the charts are there."""
        bench.put("ctpl_a", "ctpl_b")
        outcome = bench.run()
        assert (outcome.kind, outcome.items, outcome.failures) == (OutcomeKind.SUCCEEDED, 2, 0)
        step = bench.step()
        assert (step["status"], step["outputs"]) == (
            "SUCCEEDED",
            {"outputsManifestGcsUri": MANIFEST_URI, "gcs_uri": MANIFEST_URI},
        )
        uris = [item["png_gcs_uri"] for item in bench.manifest()["items"]]
        assert sorted(uri.removeprefix(f"gs://{BUCKET}/") for uri in uris) == bench.names()[:-1]
        assert bench.names()[-1] == MANIFEST_NAME

    def test_only_the_closed_step_object_is_written(self, bench):
        """And nothing else in the run."""
        bench.put("ctpl_a")
        before = bench.run_reference.get().to_dict()
        bench.run()
        after = bench.run_reference.get().to_dict()
        changed = {
            key
            for key in after["steps"][STEP_ID]
            if after["steps"][STEP_ID][key] != before["steps"][STEP_ID].get(key)
        }
        assert changed == {"status", "finishedAt", "outputs"}
        del before["steps"][STEP_ID], after["steps"][STEP_ID]
        assert after == before

    def test_items_say_who_made_them(self, bench):
        """`meta.provider` is always set, beside what the provider tells."""
        bench.put("ctpl_a")
        bench.run()
        (item,) = bench.manifest()["items"]
        assert item["meta"] == {"fixture": "none", "provider": "mock"}
        assert item["kind"] == "price + volume"
        stamp = item["png_gcs_uri"].rpartition("/")[2][:15]
        assert item["generatedAt"].replace("-", "").replace(":", "").replace("T", "-")[:15] == stamp

    def test_objects_are_labelled(self, bench):
        """Later attempts and people go by that."""
        bench.put("ctpl_a")
        bench.run()
        blob = bench.objects.bucket(BUCKET).get_blob(bench.names()[0])
        assert blob.metadata == {
            "runId": RUN_ID,
            "stepId": STEP_ID,
            "chartTemplateId": "ctpl_a",
            "provider": "mock",
        }

    def test_the_manifest_is_the_last_object_and_written_once(self, bench):
        """Whoever sees it sees all charts."""
        bench.put(*NAMES)
        bench.run()
        blobs = {blob.name: blob.generation for blob in bench.objects.list_blobs(BUCKET)}
        assert max(blobs, key=lambda name: blobs[name]) == MANIFEST_NAME
        assert bench.cloud.storage.calls["objects.insert"] == len(NAMES) + 1

    def test_the_order_asked_for_is_kept(self, bench):
        """However late the first chart comes."""
        last_is_done = threading.Event()

        def first(_request):
            assert last_is_done.wait(10)
            return png_bytes()

        def last(_request):
            last_is_done.set()
            return png_bytes()

        bench.provider.script = {"ctpl_b": first, "ctpl_a": last}
        bench.put("ctpl_b", "ctpl_c", "ctpl_a")
        bench.run()
        assert _told(bench.manifest()) == (["ctpl_b", "ctpl_c", "ctpl_a"], [])

    def test_requests_are_made_side_by_side_up_to_the_limit(self, bench):
        """Never more at once than allowed, and as many as that."""
        inside, together, lock = 0, threading.Barrier(2), threading.Lock()
        most = 0

        def make(_request):
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            together.wait(10)
            with lock:
                inside -= 1
            return png_bytes()

        bench.provider.script = dict.fromkeys(NAMES[:4], make)
        bench.put(*NAMES[:4])
        bench.run(concurrency=2)
        assert most == 2
        assert bench.step()["status"] == "SUCCEEDED"

    def test_every_line_of_a_step_carries_its_ids(self, bench, log_lines):
        """Also those of the threads that make its charts."""
        bench.put("ctpl_a", "ctpl_missing", min_images=1)
        bench.run()
        lines = log_lines()
        assert {(line["runId"], line["stepId"]) for line in lines} == {(RUN_ID, STEP_ID)}
        assert [
            line["event"] for line in lines if line["event"] in {"manifest_written", "step_completed"}
        ] == [
            "manifest_written",
            "step_completed",
        ]


class TestFailedRequests:
    """`minImages` decides."""

    @pytest.mark.parametrize(
        ("min_images", "status"), [(0, "SUCCEEDED"), (2, "SUCCEEDED"), (3, "FAILED"), (None, "FAILED")]
    )
    def test_enough_charts_make_a_success(self, bench, min_images, status):
        """One of three failed."""
        bench.provider.script = {"ctpl_b": _failing()}
        bench.put("ctpl_a", "ctpl_b", "ctpl_c", min_images=min_images)
        bench.run()
        assert bench.step()["status"] == status
        assert _told(bench.manifest()) == (["ctpl_a", "ctpl_c"], ["ctpl_b"])

    def test_no_chart_at_all_is_a_success_when_none_is_needed(self, bench):
        """`minImages` 0 says so."""
        bench.provider.script = {"ctpl_a": _failing()}
        bench.put("ctpl_a", min_images=0)
        assert bench.run().kind is OutcomeKind.SUCCEEDED

    def test_a_failed_step_names_its_first_failure_and_its_manifest(self, bench):
        """The manifest stands in the error, not in the outputs."""
        bench.provider.script = {"ctpl_b": _failing("first"), "ctpl_c": _failing("second")}
        bench.put("ctpl_a", "ctpl_b", "ctpl_c")
        outcome = bench.run()
        step = bench.step()
        assert step["error"] == {
            "code": "CHART_API_FAILED",
            "message": "1 of 3 needed charts were made: first",
            "details": {"manifestGcsUri": MANIFEST_URI, "chartTemplateId": "ctpl_b", "httpStatus": 422},
        }
        assert step["outputs"] == {}
        assert (outcome.kind, outcome.manifest_uri) == (OutcomeKind.FAILED, MANIFEST_URI)

    def test_each_failure_has_its_own_words(self, bench):
        """In the manifest."""
        bench.provider.script = {"ctpl_a": _failing()}
        bench.put("ctpl_a", "ctpl_missing", min_images=0)
        bench.run()
        errors = [entry["error"] for entry in bench.manifest()["failures"]]
        assert [error["code"] for error in errors] == ["CHART_API_FAILED", "VALIDATION_FAILED"]
        assert errors[1]["message"] == "Template ctpl_missing does not exist in chart_templates."

    def test_a_bad_template_fails_its_request_alone(self, bench):
        """Without asking the provider."""
        bench.documents.collection("chart_templates").document("ctpl_b").set(template_document(width=1))
        bench.put("ctpl_a", "ctpl_b", min_images=1)
        bench.run()
        assert bench.provider.asked == ["ctpl_a"]
        assert bench.step()["status"] == "SUCCEEDED"

    @pytest.mark.parametrize(
        ("picture", "code"),
        [
            (b"<html>", "CHART_API_FAILED"),
            (png_bytes(800, 601), "CHART_API_FAILED"),
            (png_bytes(padding=5000), "CHART_TOO_LARGE"),
        ],
    )
    def test_a_picture_that_is_none_is_not_uploaded(self, bench, picture, code):
        """Whoever made it."""
        bench.provider.script = {"ctpl_a": lambda _request: picture}
        bench.put("ctpl_a", min_images=0)
        bench.run(max_png_bytes=5000)
        assert bench.manifest()["failures"][0]["error"]["code"] == code
        assert bench.names() == [MANIFEST_NAME]

    def test_an_unforeseen_error_elsewhere_fails_the_step(self, bench, log_lines):
        """No step stays RUNNING because of the worker's own fault."""
        pipeline = bench.pipeline()

        def broken(*_arguments, **_more):
            raise KeyError("nobody thought of this")

        pipeline._artifacts.write_manifest = broken
        bench.put("ctpl_a")
        outcome = pipeline.run(RUN_ID, STEP_ID, budget=pipeline.new_budget())
        assert outcome.kind is OutcomeKind.FAILED
        assert bench.step()["error"] == {
            "code": "CRASH_LOOP",
            "message": "The worker failed on this step: unexpected KeyError.",
        }
        assert [line["severity"] for line in log_lines() if line["event"] == "internal_error"] == ["ERROR"]

    def test_templates_are_asked_for_again_while_firestore_is_away(self, bench):
        """An outage shorter than the step's time costs no chart."""
        bench.put("ctpl_a")
        bench.cloud.firestore.faults.add(
            Fault(method="BatchGetDocuments", match="chart_templates", error="RESOURCE_EXHAUSTED", times=1)
        )
        bench.run()
        assert bench.step()["status"] == "SUCCEEDED"

    def test_an_unforeseen_error_of_the_provider_fails_its_request_alone(self, bench, log_lines):
        """The step ends, and the trace is in the logs."""

        def broken(_request):
            raise KeyError("nobody thought of this")

        bench.provider.script = {"ctpl_a": broken}
        bench.put("ctpl_a", "ctpl_b", min_images=1)
        bench.run()
        assert bench.step()["status"] == "SUCCEEDED"
        assert bench.manifest()["failures"][0]["error"] == {
            "code": "CHART_API_FAILED",
            "message": "The chart could not be had: unexpected KeyError.",
        }
        (line,) = [line for line in log_lines() if line["event"] == "internal_error"]
        assert "Traceback" in line["exception"]

    def test_a_refused_upload_fails_its_request_alone(self, bench):
        """With the status for a person."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", match=r"ctpl_a", error=403))
        bench.put("ctpl_a", "ctpl_b", min_images=1)
        bench.run()
        error = bench.manifest()["failures"][0]["error"]
        assert (error["code"], error["details"]["httpStatus"]) == ("GCS_WRITE_FAILED", 403)

    def test_candles_are_read_once_a_step(self, bench):
        """Every chart gets the same bytes."""
        got = []

        def draw(request):
            got.append(request.read_candles())
            return png_bytes()

        bench.objects.bucket(BUCKET).blob("candles.json").upload_from_string(b"[1]")
        bench.provider.script = dict.fromkeys(NAMES, draw)
        bench.put(
            *NAMES,
            inputs={
                "requests": [{"chartTemplateId": n} for n in NAMES],
                "ohlcv_gcs_uri": f"gs://{BUCKET}/candles.json",
            },
        )
        bench.run()
        assert got == [b"[1]"] * 5
        assert bench.cloud.storage.calls["objects.download"] + bench.cloud.storage.calls["objects.get"] == 1

    def test_missing_candles_are_each_request_s_own_failure(self, bench):
        """Said to all that asked."""
        told = []

        def draw(request):
            try:
                return request.read_candles()
            except OhlcvUnavailable as error:
                told.append(str(error))
                raise

        bench.provider.script = dict.fromkeys(NAMES[:2], draw)
        bench.put(*NAMES[:2])
        bench.run()
        assert len(told) == 2
        assert bench.step()["error"]["code"] == "OHLCV_UNAVAILABLE"


class TestFailedSteps:
    """What ends a step as a whole."""

    def test_a_step_that_asks_for_nonsense_fails_before_anything_is_paid_for(self, bench):
        """No provider call, no object, no manifest."""
        bench.put("ctpl_a", min_images=2)
        outcome = bench.run()
        step = bench.step()
        assert (step["status"], step["error"]["code"]) == ("FAILED", "VALIDATION_FAILED")
        assert step["error"]["details"] == {"field": "inputs.minImages"}
        assert (bench.provider.asked, bench.names(), outcome.manifest_uri) == ([], [], None)

    def test_a_manifest_that_is_refused_fails_the_step(self, bench):
        """Its charts stay."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", match=r"manifest.json", error=403))
        bench.put("ctpl_a")
        bench.run()
        error = bench.step()["error"]
        assert (error["code"], error["details"]["httpStatus"]) == ("MANIFEST_WRITE_FAILED", 403)
        assert len(bench.names()) == 1

    def test_a_storage_that_stays_away_is_told_to_the_caller_and_the_step_fails(self, bench):
        """Without a lease it would stay RUNNING for ever."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", error=503))
        bench.put("ctpl_a")
        with pytest.raises(BackendUnavailable):
            bench.run(seconds=2)
        assert bench.step()["error"]["code"] == "GCS_WRITE_FAILED"

    def test_a_lost_claim_makes_nothing(self, bench):
        """Not even a look at the templates."""
        bench.put("ctpl_a", status="RUNNING")
        outcome = bench.run()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.CLAIM_LOST, "step_running")
        assert bench.provider.asked == []

    def test_a_step_finished_by_another_meanwhile_is_left_alone(self, bench):
        """What stands, stands."""

        def make(_request):
            bench.run_reference.update({f"steps.{STEP_ID}.status": "CANCELLED"})
            return png_bytes()

        bench.provider.script = {"ctpl_a": make}
        bench.put("ctpl_a")
        outcome = bench.run()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.FINALIZE_REFUSED, "step_final")
        assert bench.step() == chart_step(
            dependsOn=[], inputs={"requests": [{"chartTemplateId": "ctpl_a"}]}, status="CANCELLED"
        )

    def test_a_run_deleted_meanwhile_is_gone(self, bench):
        """And not made again."""

        def make(_request):
            bench.run_reference.delete()
            return png_bytes()

        bench.provider.script = {"ctpl_a": make}
        bench.put("ctpl_a")
        assert bench.run().reason == "run_missing"
        assert bench.run_reference.get().exists is False


class TestTime:
    """The budget and the stop."""

    def test_a_hanging_provider_is_left_at_the_step_s_time(self, bench):
        """Its request fails with STEP_TIMEOUT, the others count, the manifest is written."""
        release = threading.Event()
        bench.provider.script = {"ctpl_a": lambda _request: bytes(release.wait(20))}
        bench.put("ctpl_a", "ctpl_b", min_images=1)
        started = time.monotonic()
        outcome = bench.run(seconds=1)
        elapsed = time.monotonic() - started
        release.set()
        assert outcome.kind is OutcomeKind.SUCCEEDED
        assert elapsed < 1 + 2 + 3
        manifest = bench.manifest()
        assert _told(manifest) == (["ctpl_b"], ["ctpl_a"])
        assert manifest["failures"][0]["error"]["code"] == "STEP_TIMEOUT"

    def test_a_chart_that_comes_too_late_is_not_uploaded(self, bench):
        """The step has ended without it."""
        release = threading.Event()

        def late(_request):
            release.wait(20)
            return png_bytes()

        bench.provider.script = {"ctpl_a": late}
        bench.put("ctpl_a", min_images=0)
        bench.run(seconds=1)
        (left_behind,) = [thread for thread in threading.enumerate() if thread.name.startswith("chart_")]
        release.set()
        left_behind.join(10)
        assert bench.names() == [MANIFEST_NAME]

    def test_a_chart_that_comes_too_late_is_stopped_and_not_only_out_of_time(self, bench):
        """On a clock that stands its time is never over: the step itself stops what it leaves behind."""
        release = threading.Event()

        def late(_request):
            release.wait(20)
            return png_bytes()

        bench.provider.script = {"ctpl_a": late}
        bench.put("ctpl_a", min_images=0)
        bench.run(seconds=1, clock=HandClock())
        (left_behind,) = [thread for thread in threading.enumerate() if thread.name.startswith("chart_")]
        release.set()
        left_behind.join(10)
        assert bench.names() == [MANIFEST_NAME]
        assert bench.cloud.storage.calls["objects.insert"] == 1

    def test_requests_still_waiting_for_a_thread_time_out_too(self, bench):
        """Each request ends in exactly one entry."""
        bench.provider.script = {"ctpl_a": lambda request: request.budget.sleep(20) or b""}
        bench.put("ctpl_a", "ctpl_b", "ctpl_c", min_images=0)
        bench.run(concurrency=1, seconds=1)
        codes = [entry["error"]["code"] for entry in bench.manifest()["failures"]]
        assert codes == ["STEP_TIMEOUT"] * 3
        assert bench.provider.asked == ["ctpl_a"]

    @pytest.mark.parametrize("listens", [True, False])
    def test_a_stop_is_heard_within_two_seconds(self, bench, listens):
        """Also when a provider does not listen; the step is neither finalized nor given a manifest."""
        asked, release = threading.Event(), threading.Event()

        def make(request):
            asked.set()
            if listens:
                request.budget.sleep(20)
            return bytes(release.wait(20))

        bench.provider.script = {"ctpl_a": make}
        bench.put("ctpl_a", "ctpl_b")
        pipeline = bench.pipeline()
        budget = pipeline.new_budget()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(pipeline.run, RUN_ID, STEP_ID, budget=budget)
            assert asked.wait(10)
            stopped = time.monotonic()
            budget.stop(Interrupted("shutdown"))
            with pytest.raises(Interrupted):
                future.result(10)
            assert time.monotonic() - stopped < 3
        release.set()
        assert bench.step()["status"] == "RUNNING"
        assert MANIFEST_NAME not in bench.names()

    def test_a_stop_outranks_a_backend_that_fails(self, bench):
        """A step that was told to stop is not failed for it."""
        pipeline = bench.pipeline()
        budget = pipeline.new_budget()

        def make(_request):
            budget.stop(Interrupted("shutdown"))
            raise BackendUnavailable("storage", "503")

        bench.provider.script = {"ctpl_a": make}
        bench.put("ctpl_a")
        with pytest.raises(Interrupted):
            pipeline.run(RUN_ID, STEP_ID, budget=budget)
        assert bench.step()["status"] == "RUNNING"
