"""Charts that can't be made: each is its own failure, and `minImages` decides about the step."""

from __future__ import annotations

import errno
from unittest.mock import ANY

import pytest

from localcloud import Fault
from tests.support.fakes import BUCKET, RUN_ID, STEP_ID, png_bytes, template_document
from tests.support.pipeline_bench import MANIFEST_NAME, MANIFEST_URI, NAMES, template_ids
from worker_chart_export.errors import BackendUnavailable, ChartApiFailed, OhlcvUnavailable
from worker_chart_export.execution import template_reads
from worker_chart_export.execution.outcome import OutcomeKind


def _failing(code_words="no picture"):
    def fail(_request):
        raise ChartApiFailed(code_words, httpStatus=422)

    return fail


class TestFailedRequests:
    """`minImages` decides whether a step succeeds."""

    @pytest.mark.parametrize("min_images", [0, 1, 2])
    def test_enough_charts_make_a_success(self, bench, min_images):
        """A step with enough charts succeeds, although one of three failed; all others are made."""
        bench.provider.script = {"ctpl_b": _failing()}
        bench.put("ctpl_a", "ctpl_b", "ctpl_c", min_images=min_images)
        bench.run()
        assert bench.step()["status"] == "SUCCEEDED"
        assert template_ids(bench.manifest()) == (["ctpl_a", "ctpl_c"], ["ctpl_b"])

    def test_no_chart_at_all_is_a_success_when_none_is_needed(self, bench):
        """With `minImages` 0 a step without charts succeeds."""
        bench.provider.script = {"ctpl_a": _failing()}
        bench.put("ctpl_a", min_images=0)
        assert bench.run().kind is OutcomeKind.SUCCEEDED

    def test_a_failed_step_names_its_first_failure_and_its_manifest(self, bench):
        """A failed step's error has its first failure and the manifest; `outputs` has no manifest."""
        bench.provider.script = {"ctpl_b": _failing("first"), "ctpl_c": _failing("second")}
        bench.put("ctpl_a", "ctpl_b", "ctpl_c")
        outcome = bench.run(concurrency=1)
        step = bench.step()
        assert step["error"] == {
            "code": "CHART_API_FAILED",
            "message": "1 of 3 needed charts were made: first",
            "details": {
                "manifestGcsUri": MANIFEST_URI,
                "chartTemplateId": "ctpl_b",
                "httpStatus": 422,
                "attempt": 1,
                "owner": ANY,
            },
        }
        assert step["outputs"] == {}
        assert (outcome.kind, outcome.manifest_uri) == (OutcomeKind.FAILED, MANIFEST_URI)

    def test_each_failure_has_its_own_message(self, bench):
        """Each failure in the manifest has its own message."""
        bench.provider.script = {"ctpl_a": _failing()}
        bench.put("ctpl_a", "ctpl_missing", min_images=0)
        bench.run()
        errors = [entry["error"] for entry in bench.manifest()["failures"]]
        assert [error["code"] for error in errors] == ["CHART_API_FAILED", "VALIDATION_FAILED"]
        assert errors[1]["message"] == "Template ctpl_missing does not exist in chart_templates."

    def test_a_bad_template_fails_its_request_alone(self, bench):
        """A bad template fails its request without a provider call."""
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
    def test_an_invalid_picture_is_not_uploaded(self, bench, picture, code):
        """A picture that is no PNG is not uploaded, whichever provider made it."""
        bench.provider.script = {"ctpl_a": lambda _request: picture}
        bench.put("ctpl_a", min_images=0)
        bench.run(max_png_bytes=5000)
        assert bench.manifest()["failures"][0]["error"]["code"] == code
        assert bench.names() == [MANIFEST_NAME]

    def test_what_follows_the_end_of_a_picture_is_not_uploaded(self, bench):
        """Bytes after the end of a picture are not uploaded, whichever provider made it."""
        bench.provider.script = {"ctpl_a": lambda _request: png_bytes() + b"\n"}
        bench.put("ctpl_a")
        bench.run(max_png_bytes=len(png_bytes()))
        (chart,) = [name for name in bench.names() if name.endswith(".png")]
        assert bench.objects.bucket(BUCKET).blob(chart).download_as_bytes() == png_bytes()

    def test_an_unforeseen_error_elsewhere_fails_the_step(self, bench, log_lines):
        """An unexpected error fails the step, so that it does not stay RUNNING."""
        pipeline = bench.pipeline()

        def broken(*_arguments, **_more):
            raise KeyError("a bug")

        pipeline._artifacts.write_manifest = broken
        bench.put("ctpl_a")
        outcome = pipeline.run(RUN_ID, STEP_ID, scope=pipeline.new_scope())
        assert outcome.kind is OutcomeKind.FAILED
        assert bench.step()["error"] == {
            "code": "CRASH_LOOP",
            "message": "The worker failed on this step: unexpected KeyError.",
            "details": {"attempt": 1, "owner": ANY},
        }
        assert [line["severity"] for line in log_lines() if line["event"] == "internal_error"] == ["ERROR"]

    @pytest.mark.parametrize("where", ["provider", "manifest"])
    @pytest.mark.parametrize(
        "lack",
        [OSError(errno.EMFILE, "Too many open files"), MemoryError(), RuntimeError("can't start new thread")],
        ids=["descriptors", "memory", "threads"],
    )
    def test_a_machine_without_resources_releases_the_step(self, bench, log_lines, lack, where):
        """A lack of descriptors, memory or threads is no fault of the step: it is released."""
        pipeline = bench.pipeline()

        def lacking(*_arguments, **_more):
            raise lack

        if where == "provider":
            bench.provider.script = {"ctpl_a": lacking}
        else:
            pipeline._artifacts.write_manifest = lacking
        bench.put("ctpl_a")
        with pytest.raises(BackendUnavailable, match="machine is unavailable"):
            pipeline.run(RUN_ID, STEP_ID, scope=pipeline.new_scope())
        assert bench.step()["status"] == "RUNNING"
        assert [line["event"] for line in log_lines() if line["event"] == "internal_error"] == []

    @pytest.mark.usefixtures("short_backoff")
    @pytest.mark.parametrize("error", ["RESOURCE_EXHAUSTED", "PERMISSION_DENIED"])
    def test_templates_are_read_again_while_firestore_is_unavailable_or_refuses(self, bench, error):
        """Templates are read again during an outage shorter than the step's time, so it costs no chart."""
        bench.put("ctpl_a")
        bench.cloud.firestore.faults.add(
            Fault(method="BatchGetDocuments", match="chart_templates", error=error, times=1)
        )
        bench.run()
        assert bench.step()["status"] == "SUCCEEDED"

    def test_templates_that_may_not_be_read_for_a_minute_fail_their_requests(self, bench, monkeypatch):
        """A refusal that lasts is the failure of the request, long before the step's time ends."""
        monkeypatch.setattr(template_reads, "MAX_REFUSED_SECONDS", 0.0)
        bench.put("ctpl_a")
        refused = Fault(method="BatchGetDocuments", match="chart_templates", error="PERMISSION_DENIED")
        bench.cloud.firestore.faults.add(refused)
        bench.run()
        error = bench.step()["error"]
        assert error["code"] == "VALIDATION_FAILED"
        assert "Template ctpl_a can't be read" in error["message"]
        assert bench.cloud.firestore.calls["BatchGetDocuments"] < 5

    def test_an_unforeseen_error_of_the_provider_fails_its_request_alone(self, bench, log_lines):
        """An unexpected provider error fails its request alone, and the trace is logged."""

        def broken(_request):
            raise KeyError("a bug")

        bench.provider.script = {"ctpl_a": broken}
        bench.put("ctpl_a", "ctpl_b", min_images=1)
        bench.run()
        assert bench.step()["status"] == "SUCCEEDED"
        assert bench.manifest()["failures"][0]["error"] == {
            "code": "CHART_API_FAILED",
            "message": "The chart could not be made: unexpected KeyError.",
        }
        (line,) = [line for line in log_lines() if line["event"] == "internal_error"]
        assert "Traceback" in line["exception"]

    def test_a_refused_upload_fails_its_request_alone(self, bench):
        """A refused upload fails its request alone and has the status in its error."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", match=r"ctpl_a", error=403))
        bench.put("ctpl_a", "ctpl_b", min_images=1)
        bench.run()
        error = bench.manifest()["failures"][0]["error"]
        assert (error["code"], error["details"]["httpStatus"]) == ("GCS_WRITE_FAILED", 403)

    def test_candles_are_read_once_a_step(self, bench):
        """The candles are read once per step, and every chart gets the same bytes."""
        got = []

        def draw(request):
            got.append(request.candles.load(bytes))
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
        """Missing candles fail each request that needs them."""
        messages = []

        def draw(request):
            try:
                return request.candles.load(bytes)
            except OhlcvUnavailable as error:
                messages.append(str(error))
                raise

        bench.provider.script = dict.fromkeys(NAMES[:2], draw)
        bench.put(*NAMES[:2], min_images=0)
        bench.run()
        assert len(messages) == 2
        errors = [entry["error"]["code"] for entry in bench.manifest()["failures"]]
        assert errors == ["OHLCV_UNAVAILABLE"] * 2
