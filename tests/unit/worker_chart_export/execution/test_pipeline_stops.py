"""Steps that end early or late: timeouts, stops, unavailable backends."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from localcloud import Fault
from tests.support.fakes import RUN_ID, STEP_ID, HandClock, png_bytes
from tests.support.pipeline_bench import MANIFEST_NAME, template_ids
from worker_chart_export.errors import BackendUnavailable, Interrupted
from worker_chart_export.execution.outcome import OutcomeKind
from worker_chart_export.observability.observers import Observer, Stage, watched_by


class ChartEnds(Observer):
    """An observer with a permit for each chart that has ended, late or not."""

    def __init__(self):
        self.permits = threading.Semaphore(0)

    def stage(self, stage, _about, _carrier):
        """Wait for the end of charts."""
        if stage is not Stage.CHART:
            return None
        ended = ExitStack()
        ended.callback(self.permits.release)
        return ended


@pytest.fixture
def charts_ended():
    """Return the permits of `ChartEnds`."""
    ends = ChartEnds()
    with watched_by(ends):
        yield ends.permits


class TestTime:
    """The time and the stop of a step."""

    def test_a_hanging_provider_is_left_at_the_step_s_time(self, bench):
        """When a provider hangs, its request fails with STEP_TIMEOUT; the manifest has the other charts."""
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
        assert template_ids(manifest) == (["ctpl_b"], ["ctpl_a"])
        assert manifest["failures"][0]["error"]["code"] == "STEP_TIMEOUT"

    def test_a_chart_that_comes_too_late_is_not_uploaded(self, bench, charts_ended):
        """A chart that comes after the step's end is not uploaded."""
        release = threading.Event()

        def late(_request):
            release.wait(20)
            return png_bytes()

        bench.provider.script = {"ctpl_a": late}
        bench.put("ctpl_a", min_images=0)
        bench.run(seconds=1)
        assert not charts_ended.acquire(blocking=False)
        release.set()
        assert charts_ended.acquire(timeout=10)
        assert bench.names() == [MANIFEST_NAME]

    def test_a_chart_that_comes_too_late_is_stopped_and_not_only_out_of_time(self, bench, charts_ended):
        """A late chart is stopped by the step itself, even on a clock that stands."""
        release = threading.Event()

        def late(_request):
            release.wait(20)
            return png_bytes()

        bench.provider.script = {"ctpl_a": late}
        bench.put("ctpl_a", min_images=0)
        bench.run(seconds=1, clock=HandClock())
        assert not charts_ended.acquire(blocking=False)
        release.set()
        assert charts_ended.acquire(timeout=10)
        assert bench.names() == [MANIFEST_NAME]
        assert bench.cloud.storage.calls["objects.insert"] == 1

    @pytest.mark.parametrize("left_seconds", [-100, 5])
    def test_a_claim_that_takes_the_time_of_the_step_releases_it(self, bench, left_seconds):
        """A process that stood still during its claim fails no step whose charts were never tried."""
        clock = HandClock()

        class Suspend(Observer):
            stages = frozenset({Stage.CLAIM})

            def stage(self, _stage, _about, _carrier):
                clock.ticks += 60 - left_seconds

        bench.put("ctpl_a")
        with watched_by(Suspend()), pytest.raises(BackendUnavailable, match="the claim took the time"):
            bench.run(seconds=60, clock=clock)
        assert bench.provider.asked == bench.names() == []
        assert bench.step()["status"] == "RUNNING"  # released

    def test_requests_still_waiting_for_a_thread_time_out_too(self, bench):
        """Requests that never got a thread time out, so each request has exactly one entry."""
        bench.provider.script = {"ctpl_a": lambda request: request.scope.sleep(20) or b""}
        bench.put("ctpl_a", "ctpl_b", "ctpl_c", min_images=0)
        bench.run(concurrency=1, seconds=1)
        codes = [entry["error"]["code"] for entry in bench.manifest()["failures"]]
        assert codes == ["STEP_TIMEOUT"] * 3
        assert bench.provider.asked == ["ctpl_a"]

    @pytest.mark.parametrize("listens", [True, False])
    def test_a_stop_takes_effect_within_two_seconds(self, bench, listens):
        """A stop ends the step in two seconds without finalize or manifest, also when a provider hangs."""
        asked, release = threading.Event(), threading.Event()

        def make(request):
            asked.set()
            if listens:
                request.scope.sleep(20)
            return bytes(release.wait(20))

        bench.provider.script = {"ctpl_a": make}
        bench.put("ctpl_a", "ctpl_b")
        pipeline = bench.pipeline()
        scope = pipeline.new_scope()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(pipeline.run, RUN_ID, STEP_ID, scope=scope)
            assert asked.wait(10)
            stopped = time.monotonic()
            scope.stop(Interrupted("shutdown"))
            with pytest.raises(Interrupted):
                future.result(10)
            assert time.monotonic() - stopped < 2
        release.set()
        assert bench.step()["status"] == "RUNNING"
        assert MANIFEST_NAME not in bench.names()
        _released_at_once(bench)

    def test_a_stop_outranks_a_backend_that_fails(self, bench):
        """A stopped step is not failed by a backend error."""
        pipeline = bench.pipeline()
        scope = pipeline.new_scope()

        def make(_request):
            scope.stop(Interrupted("shutdown"))
            raise BackendUnavailable("storage", "503")

        bench.provider.script = {"ctpl_a": make}
        bench.put("ctpl_a")
        with pytest.raises(Interrupted):
            pipeline.run(RUN_ID, STEP_ID, scope=scope)
        assert bench.step()["status"] == "RUNNING"
        _released_at_once(bench)

    def test_a_step_that_is_stopped_before_its_start_is_released_too(self, bench):
        """A step that is stopped before its start is released, and nothing is paid for."""
        pipeline = bench.pipeline()
        scope = pipeline.new_scope()
        scope.stop(Interrupted("shutdown"))
        bench.put("ctpl_a")
        with pytest.raises(Interrupted):
            pipeline.run(RUN_ID, STEP_ID, scope=scope)
        assert bench.provider.asked == []
        _released_at_once(bench)


class TestBackendAway:
    """Storage or Firestore stays unavailable: the step is released, but not endlessly."""

    def test_an_unavailable_storage_releases_the_step_after_a_pause(self, bench, log_lines):
        """When Storage stays unavailable the step stays RUNNING and is taken over some seconds later."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", error=503))
        bench.put("ctpl_a")
        with pytest.raises(BackendUnavailable, match="storage"):
            bench.run(seconds=2)
        lease = bench.lease()
        assert (bench.step()["status"], lease.token, lease.attempt, lease.released) == ("RUNNING", "", 1, 1)
        assert 0 < (lease.expires_at - datetime.now(UTC)).total_seconds() <= 10
        (line,) = [line for line in log_lines() if line["event"] == "lease_released"]
        assert 1 <= line["delaySeconds"] <= 10

    def test_a_manifest_that_can_t_be_written_releases_the_step_too(self, bench, monkeypatch):
        """When the manifest can't be written the step is released; its charts stay for the next attempt."""
        monkeypatch.setattr("worker_chart_export.outputs.artifact_store.MIN_MANIFEST_SECONDS", 1.0)
        bench.cloud.storage.faults.add(Fault(method="objects.insert", match="manifest.json", error=503))
        bench.put("ctpl_a")
        with pytest.raises(BackendUnavailable, match="storage"):
            bench.run(seconds=2)
        assert (bench.step()["status"], bench.lease().released, len(bench.names())) == ("RUNNING", 1, 1)

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"attempt": 10, "released": 9}, "RUNNING"),
            ({"attempt": 11, "released": 10}, "FAILED"),
            ({"started_at": datetime.now(UTC) - timedelta(seconds=1800)}, "RUNNING"),
            ({"started_at": datetime.now(UTC) - timedelta(seconds=5400)}, "FAILED"),
        ],
    )
    def test_after_ten_releases_or_an_hour_the_step_is_failed_with_the_backend_s_code(
        self, bench, changes, status
    ):
        """After ten releases or an hour the step fails with the backend's code and keeps no lease."""
        bench.cloud.storage.faults.add(Fault(method="objects.insert", error=503))
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease(**changes)
        if status == "FAILED":
            outcome = bench.run(seconds=1)
            assert (outcome.kind, outcome.error.code) == (OutcomeKind.FAILED, "GCS_WRITE_FAILED")
            assert (bench.step()["error"]["code"], bench.lease()) == ("GCS_WRITE_FAILED", None)
        else:
            with pytest.raises(BackendUnavailable):
                bench.run(seconds=1)
            assert not bench.lease().token
        assert bench.step()["status"] == status

    def test_a_template_that_can_t_be_read_in_time_releases_the_step(self, bench):
        """When a template can't be read in time the step is released, because Firestore is unavailable."""
        bench.put("ctpl_a")
        bench.cloud.firestore.faults.add(
            Fault(method="BatchGetDocuments", match="chart_templates", error="RESOURCE_EXHAUSTED")
        )
        with pytest.raises(BackendUnavailable, match="firestore"):
            bench.run(seconds=2)
        assert (bench.step()["status"], bench.lease().released) == ("RUNNING", 1)


def _released_at_once(bench):
    lease = bench.lease()
    assert (lease.token, lease.released, lease.is_released) == ("", 1, True)
    left = lease.expires_at - datetime.now(UTC)
    assert left < timedelta(seconds=1)  # as exactly as the worker knows the server's time
