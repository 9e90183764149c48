"""A step that can't get enough charts any more pays for nothing more; what can't succeed is never begun."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime

import pytest

from localcloud import Fault
from tests.support.fakes import BUCKET, RUN_ID, STEP_ID, png_bytes, template_document
from tests.support.metric_counts import value
from tests.support.pipeline_bench import NAMES, template_ids
from worker_chart_export.errors import ChartApiFailed, OutOfReach, StepTimedOut
from worker_chart_export.outputs.artifact_store import StepFolder
from worker_chart_export.outputs.manifest import MAX_MANIFEST_BYTES


def _refuse(_request):
    raise ChartApiFailed("no picture", httpStatus=422)


def _errors(bench):
    """Return the code and the message of each failure by template id."""
    return {
        entry["request"]["chartTemplateId"]: (entry["error"]["code"], entry["error"]["message"])
        for entry in bench.manifest()["failures"]
    }


def _not_made(code, first, min_images):
    return code, f"Not made: minImages {min_images} is out of reach after the failure of {first}."


class TestTemplates:
    """All templates are looked at before the first chart."""

    @pytest.mark.parametrize("concurrency", [1, 4])
    def test_a_missing_template_that_every_chart_depends_on_costs_nothing(self, bench, concurrency):
        """With three requests, all needed, and one template missing, no chart is made."""
        bench.put("ctpl_a", "ctpl_b", "ctpl_missing", min_images=3)
        bench.run(concurrency=concurrency)
        assert bench.provider.asked == []
        assert template_ids(bench.manifest()) == ([], ["ctpl_a", "ctpl_b", "ctpl_missing"])
        not_made = _not_made("VALIDATION_FAILED", "ctpl_missing", 3)
        assert _errors(bench) == {
            "ctpl_a": not_made,
            "ctpl_b": not_made,
            "ctpl_missing": (
                "VALIDATION_FAILED",
                "Template ctpl_missing does not exist in chart_templates.",
            ),
        }
        error = bench.step()["error"]
        assert (error["code"], error["details"]["chartTemplateId"]) == ("VALIDATION_FAILED", "ctpl_missing")
        assert error["message"].startswith("0 of 3 needed charts were made: Template ctpl_missing does not")

    def test_an_invalid_template_counts_like_a_missing_one(self, bench):
        """A missing and an invalid template leave too few charts, so none is made."""
        bench.documents.document("chart_templates/ctpl_b").set(template_document(width=1))
        bench.put("ctpl_a", "ctpl_b", "ctpl_missing", min_images=2)
        bench.run()
        assert bench.provider.asked == []
        assert _errors(bench)["ctpl_a"] == _not_made("VALIDATION_FAILED", "ctpl_b", 2)

    def test_while_enough_charts_are_possible_they_are_made(self, bench):
        """One missing template of three does no harm when two charts are enough."""
        bench.put("ctpl_missing", "ctpl_a", "ctpl_b", min_images=2)
        bench.run()
        assert sorted(bench.provider.asked) == ["ctpl_a", "ctpl_b"]
        assert bench.step()["status"] == "SUCCEEDED"

    def test_a_template_that_changes_afterwards_is_used_as_it_was(self, bench):
        """A template that is deleted or broken during the step is used as it was when it was looked at."""
        versions = [bench.template_version(name) for name in NAMES[:3]]

        def change_the_others(_request):
            bench.documents.document("chart_templates/ctpl_b").delete()
            bench.documents.document("chart_templates/ctpl_c").set({"description": "broken"})
            return png_bytes()

        bench.provider.script = {"ctpl_a": change_the_others}
        bench.put(*NAMES[:3])
        bench.run(concurrency=1)
        items = bench.manifest()["items"]
        assert [item["chartTemplateId"] for item in items] == list(NAMES[:3])
        assert [item["meta"]["templateVersion"] for item in items] == versions

    def test_a_template_that_was_broken_between_two_attempts_counts(self, bench):
        """A later attempt looks at the templates anew: a stored chart is listed, and none is made."""
        started_at = datetime(2025, 12, 15, 12, 0, 7, tzinfo=UTC)
        name = StepFolder(RUN_ID, STEP_ID).png_name(
            started_at=started_at, symbol="IBM", timeframe="1d", template_id="ctpl_a"
        )
        bench.objects.bucket(BUCKET).blob(name).upload_from_string(b"stored", content_type="image/png")
        bench.documents.document("chart_templates/ctpl_b").delete()
        bench.put("ctpl_a", "ctpl_b", "ctpl_c", status="RUNNING")
        bench.put_lease(started_at=started_at)
        bench.run()
        assert bench.provider.asked == []
        assert template_ids(bench.manifest()) == (["ctpl_a"], ["ctpl_b", "ctpl_c"])


class TestFailures:
    """Failures during the work."""

    def test_after_the_failure_that_is_one_too_many_no_chart_is_begun(self, bench, log_lines):
        """With five requests, of which four are needed, the second failure is the last chart begun."""
        bench.provider.script = dict.fromkeys(("ctpl_a", "ctpl_c"), _refuse)
        bench.put(*NAMES, min_images=4)
        before = value("chart_failures_total", code="CHART_API_FAILED")
        bench.run(concurrency=1)
        assert bench.provider.asked == ["ctpl_a", "ctpl_b", "ctpl_c"]
        refused, not_made = ("CHART_API_FAILED", "no picture"), _not_made("CHART_API_FAILED", "ctpl_a", 4)
        assert _errors(bench) == dict(
            zip(("ctpl_a", "ctpl_c", "ctpl_d", "ctpl_e"), (refused, refused, not_made, not_made), strict=True)
        )
        lines = [line for line in log_lines() if line["event"] in {"chart_failed", "charts_not_made"}]
        assert [(line["event"], line.get("charts")) for line in lines] == [
            ("chart_failed", None),
            ("chart_failed", None),
            ("charts_not_made", 2),
        ]
        assert value("chart_failures_total", code="CHART_API_FAILED") - before == 4

    def test_a_chart_in_progress_is_stored(self, bench):
        """A chart that is being made when another fails is paid already: it is finished and stored."""
        begun, scopes = threading.Event(), {}

        def slow(request):
            begun.set()
            with pytest.raises(OutOfReach):
                request.scope.sleep(20)
            scopes["left"] = request.call_scope.remaining_seconds()
            request.call_scope.check()
            return png_bytes()

        def fail(request):
            assert begun.wait(10)
            _refuse(request)

        bench.provider.script = {"ctpl_a": slow, "ctpl_b": fail}
        bench.put(*NAMES, min_images=5)
        bench.run(concurrency=2)
        assert sorted(bench.provider.asked) == ["ctpl_a", "ctpl_b"]
        assert template_ids(bench.manifest()) == (["ctpl_a"], ["ctpl_b", "ctpl_c", "ctpl_d", "ctpl_e"])
        assert scopes["left"] > 0

    def test_a_refused_upload_counts_too(self, bench):
        """A chart that can't be stored counts as a failure."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", match=r"ctpl_a", error=403))
        bench.put(*NAMES)
        bench.run(concurrency=1)
        assert bench.provider.asked == ["ctpl_a"]
        assert {code for code, _ in _errors(bench).values()} == {"GCS_WRITE_FAILED"}

    def test_the_first_failure_in_the_order_of_the_requests_gives_the_code(self, bench):
        """The first failure in the order of the requests gives its code to the step and to the rest."""
        bench.provider.script = {"ctpl_b": _refuse}
        bench.put("ctpl_a", "ctpl_b", "ctpl_c", "ctpl_missing", min_images=3)
        bench.run(concurrency=1)
        assert bench.provider.asked == ["ctpl_a", "ctpl_b"]
        assert _errors(bench)["ctpl_c"] == _not_made("CHART_API_FAILED", "ctpl_b", 3)
        assert bench.step()["error"]["code"] == "CHART_API_FAILED"

    def test_the_end_of_the_time_is_no_failure_that_stops_the_others(self, bench):
        """At the end of the time all unfinished requests fail with STEP_TIMEOUT, whatever failed before."""

        def hang(request):
            request.scope.sleep(60)

        bench.provider.script = {"ctpl_b": hang}
        bench.put("ctpl_missing", "ctpl_b", "ctpl_c", min_images=2)
        bench.run(concurrency=1, seconds=1)
        codes = [code for code, _ in _errors(bench).values()]
        assert codes == ["VALIDATION_FAILED", "STEP_TIMEOUT", "STEP_TIMEOUT"]

    def test_a_time_that_is_known_to_be_too_short_counts(self, bench):
        """A chart that fails before the end of the time because the rest is too short counts as a failure."""

        def too_short(_request):
            raise StepTimedOut("The step's time is too short for its charts.")

        bench.provider.script = {"ctpl_a": too_short}
        bench.put(*NAMES)
        bench.run(concurrency=1)
        assert bench.provider.asked == ["ctpl_a"]
        assert {code for code, _ in _errors(bench).values()} == {"STEP_TIMEOUT"}


class TestManifestSize:
    """A manifest that can't fit is found before the first chart."""

    def _put_described(self, bench, count, chars):
        names = [f"ctpl_{number:03}" for number in range(count)]
        batch = bench.documents.batch()
        for name in names:
            document = {**template_document(), "description": "d" * chars}
            batch.set(bench.documents.document(f"chart_templates/{name}"), document)
        batch.commit()
        bench.put(*names)

    @pytest.mark.parametrize(("count", "chars"), [(200, 60), (4, 20_000), (1, 65_536)])
    def test_it_is_refused_before_the_first_chart(self, bench, count, chars):
        """200 requests, or 4 with descriptions of 20 kB, fail without a chart."""
        self._put_described(bench, count, chars)
        bench.run()
        error = bench.step()["error"]
        assert (error["code"], error["details"]["field"]) == ("VALIDATION_FAILED", "inputs.requests")
        assert error["details"]["manifestBytes"] > MAX_MANIFEST_BYTES
        assert (bench.provider.asked, bench.names()) == ([], [])

    def test_thousands_of_requests_read_no_template(self, bench, log_lines):
        """20,000 requests fail before a template is read, with two lines in the log."""
        bench.put(*(f"ctpl_{number:05}" for number in range(20_000)))
        before = bench.cloud.firestore.calls["BatchGetDocuments"]
        bench.run()
        assert bench.step()["error"]["details"]["field"] == "inputs.requests"
        assert bench.cloud.firestore.calls["BatchGetDocuments"] - before <= 2  # of the run and its lease
        assert [line["event"] for line in log_lines()] == ["claim_attempt", "step_completed"]

    @pytest.mark.parametrize("more", [0, 1])
    def test_the_largest_that_fits_is_made(self, bench, more):
        """A manifest of exactly 64 KiB is made; one more byte is refused before the first chart."""
        bench.put("ctpl_a", "ctpl_b")
        bench.run()
        manifest = bench.manifest()
        for item in manifest["items"]:
            item["meta"] = {key: item["meta"][key] for key in ("provider", "templateVersion")}
        room = MAX_MANIFEST_BYTES - len(json.dumps(manifest, separators=(",", ":")))
        description = template_document()["description"] + "d" * (room + more)
        bench.documents.document("chart_templates/ctpl_b").update({"description": description})
        bench.provider.asked.clear()
        bench.put("ctpl_a", "ctpl_b")
        outcome = bench.run()
        if more:
            assert (outcome.kind, bench.provider.asked) == ("failed", [])
        else:
            assert (outcome.kind, len(bench.manifest_object()[0])) == ("succeeded", MAX_MANIFEST_BYTES)
