"""A step that loses its lease: the work ends, pays for nothing and overwrites nothing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from localcloud import Fault
from tests.support.fakes import BUCKET, RUN_ID, STEP_ID, ScriptedProvider, png_bytes
from tests.support.pipeline_bench import MANIFEST_NAME, NAMES, TERMS, LeapingClock
from worker_chart_export.execution.outcome import OutcomeKind

WITHIN_SECONDS = 2.0
TAKEN = {"token": "winner", "attempt": 2}


class HangingStep:
    """A step whose first charts hang and ignore the stop; two more charts wait for a thread.

    Attributes:
        end: The future of its outcome.
    """

    def __init__(self, bench, pool):
        self._hanging, self._release = threading.Semaphore(0), threading.Event()
        bench.provider.script = dict.fromkeys(NAMES[:2], self._hang)
        bench.put(*NAMES[:4])
        pipeline = bench.pipeline(concurrency=2)
        self.end = pool.submit(pipeline.run, RUN_ID, STEP_ID, scope=pipeline.new_scope())
        for _ in range(2):
            assert self._hanging.acquire(timeout=10)

    def _hang(self, _request):
        self._hanging.release()
        self._release.wait(20)
        return png_bytes()

    def let_go(self):
        """Let the late charts finish, and wait until their threads have handled them."""
        self._release.set()
        _join_chart_threads()


@pytest.fixture
def hanging(bench, monkeypatch):
    """Return a step under way; a chart that ignores its stop is waited for a tenth of the usual time."""
    monkeypatch.setattr("worker_chart_export.concurrency.parallel.OVERRUN_GRACE_SECONDS", 0.1)
    with ThreadPoolExecutor(1) as pool:
        step = HangingStep(bench, pool)
        yield step
        step.let_go()


def _join_chart_threads():
    for thread in threading.enumerate():
        if thread.name.startswith("chart_"):
            thread.join(10)
            assert not thread.is_alive()


def _refused(outcome):
    return outcome.kind is OutcomeKind.FINALIZE_REFUSED and outcome.reason


def _endings(lines):
    """Return the events that end a step which this worker has lost."""
    return [
        (line["event"], line.get("reason"))
        for line in lines
        if line["event"] in {"lease_lost", "finalize_refused", "step_completed"}
    ]


LOST = [("lease_lost", None), ("finalize_refused", "lease_lost")]


class TestHeartBeat:
    """The results of a heartbeat."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda bench: bench.put_lease(**TAKEN), "another worker has taken it"),
            (lambda bench: bench.lease_reference.delete(), "another worker has taken it"),
            (lambda bench: bench.run_reference.delete(), "the run is gone"),
            (lambda bench: bench.run_reference.update({"status": "CANCELLED"}), "the run is CANCELLED"),
            (
                lambda bench: bench.run_reference.update({f"steps.{STEP_ID}.status": "CANCELLED"}),
                "no longer RUNNING but CANCELLED",
            ),
        ],
    )
    def test_a_lost_step_ends_within_two_seconds(self, bench, hanging, change, message, log_lines):
        """A lost step ends within two seconds; no chart is requested or stored after it."""
        change(bench)
        before = time.monotonic()
        bench.heartbeats.beat()
        assert _refused(hanging.end.result(10)) == "lease_lost"
        assert time.monotonic() - before < WITHIN_SECONDS
        assert _endings(log_lines()) == LOST
        assert message in next(line["message"] for line in log_lines() if line["event"] == "lease_lost")
        hanging.let_go()
        assert sorted(bench.provider.asked) == ["ctpl_a", "ctpl_b"]
        assert (bench.names(), bench.cloud.storage.calls["objects.insert"]) == ([], 0)

    def test_the_winner_s_lease_is_not_released(self, bench, hanging):
        """A worker that lost its lease does not release the winner's."""
        lease = bench.put_lease(**TAKEN, left_seconds=60)
        bench.heartbeats.beat()
        hanging.end.result(10)
        assert bench.lease() == lease

    @pytest.mark.parametrize(
        "change", [{f"steps.{STEP_ID}.status": "CANCELLED"}, {"status": "CANCELLED"}, {}]
    )
    def test_the_lease_of_a_finished_step_is_deleted_by_its_finder(self, bench, hanging, change):
        """The lease of a finished step, or of a deleted run, is deleted by the next worker that finds it."""
        if change:
            bench.run_reference.update(change)
        else:
            bench.run_reference.delete()
        bench.heartbeats.beat()
        hanging.end.result(10)
        assert bench.lease() is None or bench.lease().is_released

    def test_a_beat_that_finds_all_well_lets_the_step_go_on(self, bench, hanging):
        """A successful heartbeat extends the lease, and the step continues."""
        before = bench.lease()
        bench.heartbeats.beat()
        assert bench.lease().expires_at > before.expires_at
        hanging.let_go()
        assert hanging.end.result(10).kind is OutcomeKind.SUCCEEDED
        assert sorted(bench.provider.asked) == list(NAMES[:4])


class TestSelfFencing:
    """A frozen process whose lease expired before a heartbeat could stop it."""

    @pytest.mark.parametrize("taken", [False, True])
    def test_it_pays_for_nothing_and_ends_within_two_seconds(self, bench, taken, log_lines):
        """After its lease expired a frozen process pays for nothing and ends within two seconds."""
        clock, release = LeapingClock(), threading.Event()
        woke = []

        def wake(_request):
            clock.leap(TERMS.lease_seconds)
            if taken:
                bench.put_lease(**TAKEN, left_seconds=60)
            woke.append(time.monotonic())
            return png_bytes()

        bench.provider.script = {"ctpl_a": lambda _request: bytes(release.wait(20)), "ctpl_b": wake}
        bench.put(*NAMES[:4])
        assert _refused(bench.run(concurrency=2, clock=clock, seconds=600)) == "lease_lost"
        assert time.monotonic() - woke[0] < WITHIN_SECONDS
        release.set()
        _join_chart_threads()
        assert sorted(bench.provider.asked) == ["ctpl_a", "ctpl_b"]
        assert bench.cloud.storage.calls["objects.insert"] == 0
        assert _endings(log_lines()) == LOST
        assert bench.lease().token.startswith("win") is taken
        assert (
            bench.lease().released == 0
        )  # nothing was released: the attempts of a step that freezes workers are counted

    def test_it_stops_itself_before_the_others_may_take_over(self, bench):
        """The worker stops itself before others may take over, by the clock skew."""
        clock = LeapingClock()

        def late(_request):
            clock.leap(TERMS.lease_seconds - TERMS.clock_skew_seconds)
            return png_bytes()

        bench.provider.script = {"ctpl_a": late}
        bench.put("ctpl_a")
        assert _refused(bench.run(clock=clock)) == "lease_lost"
        assert bench.names() == []

    def test_it_writes_no_manifest(self, bench):
        """A process that froze after its last chart writes no manifest."""
        clock = LeapingClock()
        bench.cloud.storage.faults.add(
            Fault(method="objects.insert", match=".png", before=lambda _request: clock.leap(60))
        )
        bench.put("ctpl_a")
        assert _refused(bench.run(clock=clock)) == "lease_lost"
        assert MANIFEST_NAME not in bench.names()
        assert bench.cloud.storage.calls["objects.insert"] == 1


class TestFencedManifest:
    """Compare-and-swap: a worker that lost its lease never replaces the winner's manifest."""

    def _beaten_at(self, bench, **moment):
        """Let the winner take over and finish at this moment; return what it stored."""
        left = []

        def win(_request):
            bench.expire_lease()
            assert bench.run(provider=ScriptedProvider()).kind is OutcomeKind.SUCCEEDED
            left.append((bench.step(), *bench.manifest_object()))

        service = bench.cloud.storage if moment["method"] == "objects.insert" else bench.cloud.firestore
        service.faults.add(Fault(times=1, before=win, **moment))
        return left

    def test_one_that_finds_the_winner_s_manifest_keeps_it(self, bench, log_lines):
        """A worker that finds the winner's manifest, where it expected none, does not replace it."""
        left = self._beaten_at(bench, method="objects.insert", match="manifest.json")
        bench.put("ctpl_a", "ctpl_b")
        assert _refused(bench.run()) == "lease_lost"
        assert left == [(bench.step(), *bench.manifest_object())]
        assert _endings(log_lines())[-2:] == LOST
        assert bench.lease() is None

    def test_one_that_read_an_older_manifest_does_not_replace_the_winner_s(self, bench):
        """A worker that read an older manifest and was then too slow does not replace the winner's."""
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease()
        bench.objects.bucket(BUCKET).blob(MANIFEST_NAME).upload_from_string(b"{}")
        left = self._beaten_at(bench, method="objects.insert", match="manifest.json", skip=1)
        assert _refused(bench.run()) == "lease_lost"
        assert left == [(bench.step(), *bench.manifest_object())]

    def test_the_holder_replaces_what_an_earlier_attempt_left(self, bench):
        """The holder replaces an earlier attempt's manifest on condition of its generation."""
        bench.put("ctpl_a", status="RUNNING")
        bench.put_lease()
        bench.objects.bucket(BUCKET).blob(MANIFEST_NAME).upload_from_string(b"{}")
        assert bench.run().kind is OutcomeKind.SUCCEEDED
        assert bench.manifest()["items"]

    def test_one_that_wrote_first_and_was_taken_over_then_is_fenced_at_finalize(self, bench):
        """A worker that wrote its manifest and then lost its lease is fenced at its finalize."""
        left = self._beaten_at(bench, method="Commit", match="chart_export_leases", skip=1)
        bench.put("ctpl_a")
        assert _refused(bench.run()) in {"step_final", "fenced"}
        assert left == [(bench.step(), *bench.manifest_object())]
        assert bench.step()["status"] == "SUCCEEDED"
