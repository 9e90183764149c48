"""Daemon processes whose clocks are wrong, are set while they run, or stand still during a suspend."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from localcloud.faults import Fault
from tests.support.cloud.resources import asked, health
from tests.support.fakes import lease_of
from tests.support.process.shifted_clocks import CLIENT_ON_WALL_CLOCK, SHIFTED, Clocks
from worker_chart_export.ledger.lease import LEASES

HOUR = 3600.0
STEPS = 12


@pytest.fixture
def clocks(tmp_path):
    """Return the clocks of the test's daemon."""
    return Clocks(tmp_path)


def _daemon(deployment, clocks, **changed):
    return deployment.daemon(module=SHIFTED, **clocks.environment, **changed)


def _step_settled(deployment, daemon):
    """Publish a step, and wait until its message is settled. Its ack may still be unsent."""
    settled = len(daemon.named("message_settled"))
    run_id, (step_id,) = deployment.put_run(charts=1)
    deployment.publish_step(run_id, step_id)
    daemon.wait_for_event("message_settled", count=settled + 1)


@pytest.mark.parametrize("step_seconds", [-HOUR, HOUR])
def test_steps_of_the_wall_clock_hold_up_no_message(deployment, clocks, step_seconds):
    """All messages are acked. Google's client by itself would wait for the wall clock."""
    with _daemon(deployment, clocks).started() as daemon:
        for count in range(STEPS):
            clocks.shift(wall=step_seconds * count)
            _step_settled(deployment, daemon)
        assert daemon.terminate() == 0
    assert deployment.cloud.pubsub.calls["Deliver"] == STEPS
    assert [line["disposition"] for line in daemon.named("message_settled")] == ["ack"] * STEPS


def test_a_daemon_whose_acks_are_not_sent_is_not_alive(deployment, clocks):
    """Google's client waits for the wall clock, which was set back; `/livez` says that an ack is not sent."""
    with _daemon(deployment, clocks, **{CLIENT_ON_WALL_CLOCK: "2"}).started() as daemon:
        _step_settled(deployment, daemon)
        assert health(daemon, "/livez")[0] == 200
        for count in range(3):  # a step of the clock counts only while the client waits for a request
            clocks.shift(wall=-HOUR * (count + 1))
            _step_settled(deployment, daemon)
        daemon.wait_until(lambda: health(daemon, "/livez")[0] != 200, "a process that is not alive", 20)
        assert health(daemon, "/livez")[1]["reason"].startswith("acks: one was not sent for ")
        assert health(daemon, "/readyz")[0] == 200


@pytest.mark.parametrize("step_seconds", [-HOUR, HOUR])
def test_the_age_of_a_step_is_right_after_a_step_of_the_wall_clock(deployment, clocks, step_seconds):
    """The page shows the time of day, and ages of seconds: of the process, a running and a finished step."""
    with _daemon(deployment, clocks).started() as daemon:
        _step_settled(deployment, daemon)
        deployment.cloud.chart_img.faults.add(Fault(delay_seconds=600, times=1))
        run_id, (step_id,) = deployment.put_run()
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("claim_attempt", count=2)
        clocks.shift(wall=step_seconds)
        state = asked(daemon, "/state.json").json()
        daemon.kill()
    assert abs(state["now"] - time.time() - step_seconds) < 60
    times = [state["running"][0]["began"], state["finished"][0]["ended"], state["process"]["started"]]
    assert all(0 <= state["now"] - at < 60 for at in times)
    assert 59 * 60 <= state["now"] - state["minutes"]["start"] < 62 * 60


@pytest.mark.parametrize("ahead_seconds", [-2 * HOUR, 2 * HOUR])
def test_a_message_that_is_early_waits_for_its_step_whatever_the_time_of_the_machine(
    deployment, clocks, ahead_seconds
):
    """Its age is that by the server: it is neither rejected at once nor deferred by hours."""
    clocks.shift(wall=ahead_seconds)
    run_id, (step_id,) = deployment.put_run(status="PENDING")
    with _daemon(deployment, clocks).started() as daemon:
        deployment.publish_step(run_id, step_id)
        (settled,) = daemon.wait_for_event("message_settled")
        assert (settled["disposition"], settled["reason"], settled["delaySeconds"]) == (
            "defer",
            "pending",
            10,
        )
        assert daemon.terminate() == 0
    assert daemon.named("message_rejected") == []


@pytest.mark.parametrize("ahead_seconds", [-2 * HOUR, 2 * HOUR])
def test_an_expired_lease_is_found_whatever_the_time_of_the_machine(deployment, clocks, ahead_seconds):
    """The rescue finds leases that have expired by the server's time; what it writes has that time too."""
    clocks.shift(wall=ahead_seconds)
    run_id, step_ids = deployment.put_run(steps=2, status="RUNNING")
    for step_id, left_seconds in zip(step_ids, (-600, 600), strict=True):
        expires_at = datetime.now(UTC) + timedelta(seconds=left_seconds)
        lease = lease_of(expires_at=expires_at).to_document()
        deployment.documents.document(f"flow_runs/{run_id}/{LEASES}/{step_id}").set(lease)
    with _daemon(deployment, clocks, RESCUE_INTERVAL_SECONDS="1").started() as daemon:
        (line,) = daemon.wait_for_event("step_completed")
        assert (line["stepId"], line["attempt"]) == (step_ids[0], 2)
        assert daemon.terminate() == 0
    assert deployment.step(run_id, step_ids[1])["status"] == "RUNNING"
    written = [
        deployment.step(run_id, step_ids[0])["finishedAt"],
        deployment.manifest(run_id, step_ids[0])["createdAt"],
    ]
    for text in written:
        assert abs((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()) < 60


class TestSuspend:
    """The machine is suspended for longer than the lease of a step, while its first chart is made."""

    CHARTS = 3

    @pytest.fixture
    def suspended(self, deployment, clocks):
        """Return a function that starts a daemon, and a step during which the machine is suspended."""
        suspend = Fault(before=lambda _request: clocks.suspend(HOUR), times=1)

        @contextmanager
        def started(**changed):
            # No heartbeat comes within the test: the thread that renews leases waits by the monotonic clock.
            terms = {"LEASE_SECONDS": "120", "REQUEST_CONCURRENCY": "1"}
            run_id, (step_id,) = deployment.put_run(charts=self.CHARTS)
            with _daemon(deployment, clocks, **terms, **changed).started() as daemon:
                deployment.cloud.chart_img.faults.add(suspend)
                deployment.publish_step(run_id, step_id)
                yield daemon
                assert daemon.terminate() == 0

        return started

    def test_a_daemon_that_wakes_after_its_lease_pays_for_nothing(self, deployment, suspended):
        """The clock of the lease counts the suspend, so the worker stops before the next chart."""
        with suspended() as daemon:
            (settled,) = daemon.wait_for_event("message_settled")
            assert [line["reason"] for line in daemon.named("finalize_refused")] == ["lease_lost"]
        assert deployment.cloud.chart_img.calls["advanced-chart"] == 1
        assert (settled["disposition"], daemon.named("step_completed")) == ("defer", [])

    def test_without_such_a_clock_the_daemon_works_but_trusts_its_lease(self, deployment, suspended):
        """Systems other than Linux have only a clock that stands still during a suspend."""
        with suspended(NO_BOOT_CLOCK="1") as daemon:
            (line,) = daemon.wait_for_event("step_completed")
            assert line["status"] == "SUCCEEDED"
        assert deployment.cloud.chart_img.calls["advanced-chart"] == self.CHARTS
