"""Charts that an earlier attempt of a step has stored: they are used again, because they were paid for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from localcloud import Fault
from tests.support.fakes import BUCKET, RUN_ID, STEP_ID, png_bytes, template_document
from tests.support.pipeline_bench import MANIFEST_NAME, template_ids
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.outputs.artifact_store import StepFolder

STARTED_AT = datetime(2025, 12, 15, 12, 0, 7, 123456, tzinfo=UTC)
LISTS, UPLOADS = "objects.list", "objects.insert"


def _name(template_id, *, started_at=STARTED_AT, symbol="IBM", timeframe="1d"):
    return StepFolder(RUN_ID, STEP_ID).png_name(
        started_at=started_at, symbol=symbol, timeframe=timeframe, template_id=template_id
    )


@pytest.fixture
def store(bench):
    """Puts a chart into the bucket, as an earlier attempt does."""

    def put(name, *, provider="chart-img", content=b"the first attempt's"):
        blob = bench.objects.bucket(BUCKET).blob(name)
        blob.metadata = {"provider": provider} if provider else None
        blob.upload_from_string(content, content_type="image/png")

    return put


def _left_by_a_dead_worker(bench, *names, **changes):
    """A step that a worker was at when it ended."""
    bench.put(*names, status="RUNNING")
    bench.put_lease(**{"started_at": STARTED_AT, **changes})


def _reused(lines):
    return [(line["chartTemplateId"], line["provider"]) for line in lines if line["event"] == "chart_reused"]


class TestReuse:
    """A take-over goes by what is in the bucket already."""

    def test_only_the_missing_charts_are_asked_for(self, bench, store, log_lines):
        """The others are found by one listing, and said to be used again."""
        _left_by_a_dead_worker(bench, "ctpl_a", "ctpl_b", "ctpl_c")
        store(_name("ctpl_a"))
        store(_name("ctpl_c"), provider="local")
        before = bench.cloud.storage.calls[UPLOADS]
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        assert bench.provider.asked == ["ctpl_b"]
        assert bench.cloud.storage.calls[LISTS] == 1
        assert bench.cloud.storage.calls[UPLOADS] - before == 1 + 1  # the missing chart, the manifest
        assert sorted(_reused(log_lines())) == [("ctpl_a", "chart-img"), ("ctpl_c", "local")]

    def test_items_of_reused_charts_are_as_the_others_and_in_the_order_asked(self, bench, store):
        """Who made them is what their objects say."""
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
        """Same bytes, same generation."""
        _left_by_a_dead_worker(bench, "ctpl_a")
        store(_name("ctpl_a"))
        bucket = bench.objects.bucket(BUCKET)
        before = bucket.get_blob(_name("ctpl_a")).generation
        bench.run()
        blob = bucket.get_blob(_name("ctpl_a"))
        assert (blob.generation, blob.download_as_bytes()) == (before, b"the first attempt's")

    def test_a_step_whose_charts_are_all_there_asks_for_none(self, bench, store):
        """Its worker ended just before the manifest."""
        _left_by_a_dead_worker(bench, "ctpl_a", "ctpl_b")
        store(_name("ctpl_a"))
        store(_name("ctpl_b"))
        assert bench.run().items == 2
        assert bench.provider.asked == []

    def test_three_attempts_share_the_names_of_the_first(self, bench, store):
        """Each take-over keeps the time of the first claim, a released one too."""
        _left_by_a_dead_worker(bench, "ctpl_a", "ctpl_b", attempt=3, released=1)
        store(_name("ctpl_a"))
        bench.run()
        assert bench.names() == sorted([_name("ctpl_a"), _name("ctpl_b"), MANIFEST_NAME])

    def test_a_chart_whose_maker_is_not_said_is_used_all_the_same(self, bench, store):
        """It was paid for; `meta.provider` is always set."""
        _left_by_a_dead_worker(bench, "ctpl_a")
        store(_name("ctpl_a"), provider=None)
        bench.run()
        assert bench.manifest()["items"][0]["meta"] == {"provider": "chart-img"}

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
    def test_a_chart_of_another_name_is_not_taken_for_this_one(self, bench, store, name):
        """Of an earlier life of the step, another symbol, timeframe or template."""
        _left_by_a_dead_worker(bench, "ctpl_a")
        store(name)
        bench.run()
        assert bench.provider.asked == ["ctpl_a"]

    def test_a_template_that_is_gone_meanwhile_fails_its_request_though_its_chart_is_there(
        self, bench, store
    ):
        """Without it there is no `kind` for the item."""
        _left_by_a_dead_worker(bench, "ctpl_gone")
        store(_name("ctpl_gone"))
        bench.run()
        assert bench.step()["error"]["code"] == "VALIDATION_FAILED"


class TestListing:
    """When the bucket is listed, and what if that can't be done."""

    def test_a_first_attempt_lists_nothing(self, bench, store):
        """There is none before it; a chart that is there all the same is no error."""
        bench.put("ctpl_a")
        store(_name("ctpl_a"))
        bench.run()
        assert bench.cloud.storage.calls[LISTS] == 0
        assert bench.provider.asked == ["ctpl_a"]

    def test_a_step_made_ready_again_starts_anew(self, bench, store):
        """Its old lease counts for nothing."""
        bench.put("ctpl_a")
        bench.put_lease(attempt=4, started_at=STARTED_AT)
        store(_name("ctpl_a"))
        bench.run()
        assert (bench.provider.asked, bench.cloud.storage.calls[LISTS]) == (["ctpl_a"], 0)

    def test_a_bucket_that_may_not_be_listed_costs_charts_but_no_step(self, bench, store, log_lines):
        """They are made again; the upload finds them there."""
        bench.cloud.storage.faults.add(Fault(method=LISTS, error=403))
        _left_by_a_dead_worker(bench, "ctpl_a")
        store(_name("ctpl_a"))
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        assert bench.provider.asked == ["ctpl_a"]
        (line,) = [line for line in log_lines() if line["event"] == "backend_refused"]
        assert line["httpStatus"] == 403

    def test_a_storage_that_is_away_for_the_listing_gives_the_step_back(self, bench, store):
        """Charts that may be there are not made again."""
        bench.cloud.storage.faults.add(Fault(method=LISTS, error=503))
        started_at = datetime.now(UTC)
        _left_by_a_dead_worker(bench, "ctpl_a", started_at=started_at)
        store(_name("ctpl_a", started_at=started_at))
        with pytest.raises(BackendUnavailable, match="storage"):
            bench.run(seconds=1)
        assert (bench.provider.asked, bench.lease().released) == ([], 1)


def test_an_upload_lost_with_its_worker_is_paid_for_again_and_no_more(bench):
    """What was not stored can't be used; everything else was."""
    bench.cloud.storage.faults.add(Fault(method=UPLOADS, match="ctpl_b", error=503))
    bench.put("ctpl_a", "ctpl_b")
    with pytest.raises(BackendUnavailable):
        bench.run(seconds=1)
    bench.cloud.storage.faults.clear()
    bench.expire_lease()
    assert bench.run().items == 2
    assert sorted(bench.provider.asked) == ["ctpl_a", "ctpl_b", "ctpl_b"]


def test_a_chart_that_is_there_is_not_overwritten(bench, store):
    """A worker that was too slow finds what the winner stored."""
    bench.put("ctpl_a")
    winner = png_bytes(padding=7)

    def slow(_request):
        store(_name("ctpl_a", started_at=bench.lease().started_at), content=winner)
        return png_bytes()

    bench.provider.script = {"ctpl_a": slow}
    assert bench.run().kind is OutcomeKind.SUCCEEDED
    (chart,) = [name for name in bench.names() if name.endswith(".png")]
    assert bench.objects.bucket(BUCKET).blob(chart).download_as_bytes() == winner


def test_the_provider_is_asked_with_the_template_s_request(bench):
    """Symbol, interval and time zone are the order's."""
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
