"""Charts that an earlier attempt has stored are reused, because they were paid for."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest.mock import ANY

import pytest

from localcloud import Fault
from tests.support.fakes import BUCKET, RUN_ID, STEP_ID, png_bytes, template_document
from tests.support.pipeline_bench import MANIFEST_NAME, template_ids
from worker_chart_export.charts.base import ChartImage
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.outputs.artifact_store import StepFolder

#: In `meta` of the first item; the chart of an earlier attempt is used by the second.
CLAIMED_BY = {"attempt": 2, "owner": ANY}
STARTED_AT = datetime(2025, 12, 15, 12, 0, 7, 123456, tzinfo=UTC)
LISTS, UPLOADS = "objects.list", "objects.insert"


def _name(template_id, *, started_at=STARTED_AT, symbol="IBM", timeframe="1d"):
    return StepFolder(RUN_ID, STEP_ID).png_name(
        started_at=started_at, symbol=symbol, timeframe=timeframe, template_id=template_id
    )


@pytest.fixture
def store(bench):
    """Store a chart in the bucket as an earlier attempt would."""

    def put(name, *, provider="chart-img", content=b"the first attempt's"):
        blob = bench.objects.bucket(BUCKET).blob(name)
        blob.metadata = {"provider": provider} if provider else None
        blob.upload_from_string(content, content_type="image/png")

    return put


def _left_by_a_dead_worker(bench, *names, **changes):
    """Store a step whose worker ended during the work."""
    bench.put(*names, status="RUNNING")
    bench.put_lease(**{"started_at": STARTED_AT, **changes})


def _reused(lines):
    return [(line["chartTemplateId"], line["provider"]) for line in lines if line["event"] == "chart_reused"]


class TestReuse:
    """A take-over reuses the charts in the bucket."""

    def test_only_the_missing_charts_are_requested(self, bench, store, log_lines):
        """Only missing charts are requested; the others are found by one listing and logged as reused."""
        _left_by_a_dead_worker(bench, "ctpl_a", "ctpl_b", "ctpl_c")
        store(_name("ctpl_a"))
        store(_name("ctpl_c"), provider="local")
        before = bench.cloud.storage.calls[UPLOADS]
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        assert bench.provider.asked == ["ctpl_b"]
        assert bench.cloud.storage.calls[LISTS] == 1
        assert bench.cloud.storage.calls[UPLOADS] - before == 1 + 1  # the missing chart, the manifest
        assert sorted(_reused(log_lines())) == [("ctpl_a", "chart-img"), ("ctpl_c", "local")]

    def test_items_of_reused_charts_have_the_requested_order(self, bench, store):
        """Items of reused charts have the requested order and the provider of their objects."""
        _left_by_a_dead_worker(bench, "ctpl_b", "ctpl_a")
        store(_name("ctpl_a"))
        bench.run()
        manifest = bench.manifest()
        assert template_ids(manifest) == (["ctpl_b", "ctpl_a"], [])
        made, reused = manifest["items"]
        assert (made["meta"]["provider"], reused["meta"]["provider"]) == ("mock", "chart-img")
        assert made["generatedAt"] == reused["generatedAt"]
        assert made["kind"] == reused["kind"]
        assert [item["png_gcs_uri"] for item in (made, reused)] == [
            f"gs://{BUCKET}/{_name('ctpl_b')}",
            f"gs://{BUCKET}/{_name('ctpl_a')}",
        ]

    def test_reused_objects_are_not_touched(self, bench, store):
        """Reused objects keep their bytes and generation."""
        _left_by_a_dead_worker(bench, "ctpl_a")
        store(_name("ctpl_a"))
        bucket = bench.objects.bucket(BUCKET)
        before = bucket.get_blob(_name("ctpl_a")).generation
        bench.run()
        blob = bucket.get_blob(_name("ctpl_a"))
        assert (blob.generation, blob.download_as_bytes()) == (before, b"the first attempt's")

    def test_a_step_whose_charts_are_all_stored_requests_none(self, bench, store):
        """A step with all charts stored requests none; its worker ended just before the manifest."""
        _left_by_a_dead_worker(bench, "ctpl_a", "ctpl_b")
        store(_name("ctpl_a"))
        store(_name("ctpl_b"))
        assert bench.run().items == 2
        assert bench.provider.asked == []

    def test_three_attempts_share_the_names_of_the_first(self, bench, store):
        """Every take-over keeps the first claim's time, so the object names stay, also after a release."""
        _left_by_a_dead_worker(bench, "ctpl_a", "ctpl_b", attempt=3, released=1)
        store(_name("ctpl_a"))
        bench.run()
        assert bench.names() == sorted([_name("ctpl_a"), _name("ctpl_b"), MANIFEST_NAME])

    def test_a_chart_without_provider_metadata_is_reused(self, bench, store):
        """A chart without provider metadata is reused; `meta.provider` is always set."""
        _left_by_a_dead_worker(bench, "ctpl_a")
        store(_name("ctpl_a"), provider=None)
        bench.run()
        assert bench.manifest()["items"][0]["meta"] == {"provider": "chart-img", **CLAIMED_BY}

    @pytest.mark.parametrize(
        "name",
        [
            _name("ctpl_a", started_at=STARTED_AT.replace(second=8)),
            _name("ctpl_a", symbol="MSFT"),
            _name("ctpl_a", timeframe="1h"),
            _name("ctpl_aa"),
            _name("ctpl_a") + ".tmp",
        ],
    )
    def test_a_chart_of_another_name_is_not_reused(self, bench, store, name):
        """A chart of an earlier start, or of another symbol, timeframe or template, is not reused."""
        _left_by_a_dead_worker(bench, "ctpl_a")
        store(name)
        bench.run()
        assert bench.provider.asked == ["ctpl_a"]

    def test_a_deleted_template_fails_its_request_although_its_chart_is_stored(self, bench, store):
        """A stored chart whose template was deleted fails, because its item would have no `kind`."""
        _left_by_a_dead_worker(bench, "ctpl_gone")
        store(_name("ctpl_gone"))
        bench.run()
        assert bench.step()["error"]["code"] == "VALIDATION_FAILED"


class TestListing:
    """When the bucket is listed, and what happens when that fails."""

    def test_a_first_attempt_lists_nothing(self, bench, store):
        """A first attempt does not list the bucket, and a chart that exists already is no error."""
        bench.put("ctpl_a")
        store(_name("ctpl_a"))
        bench.run()
        assert bench.cloud.storage.calls[LISTS] == 0
        assert bench.provider.asked == ["ctpl_a"]

    def test_a_step_made_ready_again_starts_anew(self, bench, store):
        """A step that was made READY again starts anew; its old lease does not count."""
        bench.put("ctpl_a")
        bench.put_lease(attempt=4, started_at=STARTED_AT)
        store(_name("ctpl_a"))
        bench.run()
        assert (bench.provider.asked, bench.cloud.storage.calls[LISTS]) == (["ctpl_a"], 0)

    def test_a_bucket_that_may_not_be_listed_costs_charts_but_no_step(self, bench, store, log_lines):
        """When listing is refused, charts are made again, and the upload finds the stored ones."""
        bench.cloud.storage.faults.add(Fault(method=LISTS, error=403))
        _left_by_a_dead_worker(bench, "ctpl_a")
        store(_name("ctpl_a"))
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        assert bench.provider.asked == ["ctpl_a"]
        (line,) = [line for line in log_lines() if line["event"] == "backend_refused"]
        assert line["httpStatus"] == 403

    def test_an_unavailable_storage_for_the_listing_releases_the_step(self, bench, store):
        """When Storage is unavailable for the listing the step is released: no stored chart is made again."""
        bench.cloud.storage.faults.add(Fault(method=LISTS, error=503))
        started_at = datetime.now(UTC)
        _left_by_a_dead_worker(bench, "ctpl_a", started_at=started_at)
        store(_name("ctpl_a", started_at=started_at))
        with pytest.raises(BackendUnavailable, match="storage"):
            bench.run(seconds=1)
        assert (bench.provider.asked, bench.lease().released) == ([], 1)


def test_a_reused_chart_keeps_the_version_of_its_template(bench):
    """The item of a reused chart names the template as it was when the chart was made."""
    bench.cloud.storage.faults.add(Fault(method=UPLOADS, match="ctpl_b", error=503))
    bench.put("ctpl_a", "ctpl_b")
    with pytest.raises(BackendUnavailable):
        bench.run(seconds=1)
    bench.cloud.storage.faults.clear()
    versions = {name: bench.template_version(name) for name in ("ctpl_a", "ctpl_b")}
    for name in versions:
        bench.documents.document(f"chart_templates/{name}").update({"description": "changed"})
    bench.expire_lease()
    bench.run()
    reused, made = bench.manifest()["items"]
    assert (reused["meta"]["templateVersion"], reused["kind"]) == (versions["ctpl_a"], "changed")
    assert made["meta"]["templateVersion"] == bench.template_version("ctpl_b") != versions["ctpl_b"]


def test_a_reused_chart_keeps_its_numbers(bench, monkeypatch):
    """The item of a reused chart has the numbers of the chart, which stand in the object's metadata."""
    numbers = {
        "lastBar": {"close": 202.91},
        "studies": [{"name": "Größe"}],
        "candleNotes": {"gzip": 1},
    }
    meta = {"candles": 117, **numbers}
    monkeypatch.setattr(
        bench.provider, "chart", lambda _request: ChartImage(png=png_bytes(), provider="local", meta=meta)
    )
    bench.put("ctpl_a", "ctpl_b")
    bench.cloud.storage.faults.add(Fault(method=UPLOADS, match="ctpl_b", error=503))
    with pytest.raises(BackendUnavailable):
        bench.run(seconds=1)
    bench.cloud.storage.faults.clear()
    bench.expire_lease()
    bench.run()
    reused, made = (item["meta"] for item in bench.manifest()["items"])
    assert {key: reused[key] for key in numbers} == {key: made[key] for key in numbers} == numbers
    assert ("candles" in reused, "candles" in made) == (False, True)


@pytest.mark.parametrize("value", ["{oops", "[]", '{"provider": "real"}', "[" * 100_000])
def test_numbers_that_somebody_changed_are_ignored(bench, value):
    """Metadata that is no JSON object with numbers changes nothing."""
    _left_by_a_dead_worker(bench, "ctpl_a")
    blob = bench.objects.bucket(BUCKET).blob(_name("ctpl_a"))
    blob.metadata = {"provider": "local", "chartValues": value}
    blob.upload_from_string(png_bytes(), content_type="image/png")
    bench.run()
    (item,) = bench.manifest()["items"]
    assert item["meta"] == {"provider": "local", **CLAIMED_BY}


def test_an_upload_lost_with_its_worker_is_paid_for_again_and_no_more(bench):
    """Only the chart whose upload was lost with its worker is paid for again."""
    bench.cloud.storage.faults.add(Fault(method=UPLOADS, match="ctpl_b", error=503))
    bench.put("ctpl_a", "ctpl_b")
    with pytest.raises(BackendUnavailable):
        bench.run(seconds=1)
    bench.cloud.storage.faults.clear()
    bench.expire_lease()
    assert bench.run().items == 2
    assert sorted(bench.provider.asked) == ["ctpl_a", "ctpl_b", "ctpl_b"]


def test_a_chart_that_is_there_is_not_overwritten(bench, store):
    """A slow worker does not overwrite the winner's stored chart."""
    bench.put("ctpl_a")
    winner = png_bytes(padding=7)

    def slow(_request):
        store(_name("ctpl_a", started_at=bench.lease().started_at), content=winner)
        return png_bytes()

    bench.provider.script = {"ctpl_a": slow}
    assert bench.run().kind is OutcomeKind.SUCCEEDED
    (chart,) = [name for name in bench.names() if name.endswith(".png")]
    assert bench.objects.bucket(BUCKET).blob(chart).download_as_bytes() == winner


def test_the_provider_gets_the_template_s_request(bench):
    """The provider gets the symbol, interval and time zone of the request."""
    seen = []

    def make(request):
        seen.append(request)
        return png_bytes()

    bench.provider.script = {"ctpl_a": make}
    bench.put("ctpl_a")
    bench.run()
    (request,) = seen
    assert request.payload == {
        **template_document()["request"],
        "symbol": "NYSE:IBM",
        "interval": "1D",
        "timezone": "Etc/UTC",
    }
    assert (request.symbol, request.timeframe, request.template_id) == ("IBM", "1d", "ctpl_a")
