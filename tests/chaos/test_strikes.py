"""The test harness: each strike happens once, at its moment, and has its effect."""

from __future__ import annotations

import signal

import pytest

from tests.chaos.strikes import POINTS, Strike
from tests.chaos.world import world_on

#: The facts after a daemon was killed at a point: step status, paid charts, objects, messages.
LEFT = {
    "reading the run": ("READY", 0, 0, 1),
    "claim lost": ("READY", 0, 0, 1),
    "claim landed": ("RUNNING", 0, 0, 1),
    "first chart asked": ("RUNNING", 1, 0, 1),
    "first upload lost": ("RUNNING", 1, 0, 1),
    "first upload landed": ("RUNNING", 1, 1, 1),
    "second chart asked": ("RUNNING", 2, 1, 1),
    "second upload lost": ("RUNNING", 2, 1, 1),
    "second upload landed": ("RUNNING", 2, 2, 1),
    "manifest lost": ("RUNNING", 2, 2, 1),
    "manifest landed": ("RUNNING", 2, 3, 1),
    "finalize lost": ("RUNNING", 2, 3, 1),
    "finalize landed": ("SUCCEEDED", 2, 3, 1),
    "ack lost": ("SUCCEEDED", 2, 3, 1),
    "ack landed": ("SUCCEEDED", 2, 3, 0),
}


@pytest.fixture
def world(cloud):
    """Return a world on an embedded cloud."""
    with world_on(cloud) as made:
        yield made


@pytest.mark.parametrize("name", ["claim lost", "claim landed", "second upload lost", "ack landed"])
def test_a_strike_hits_its_moment(world, name):
    """At each point the cloud holds what a daemon has done up to that moment."""
    worker = world.worker(REQUEST_CONCURRENCY="1").started()
    run_id, (step_id,) = world.put_run()
    strike = Strike(world, POINTS[name], worker.kill_now)
    world.publish(run_id, [step_id])
    strike.wait()
    assert worker.process.returncode == -signal.SIGKILL

    def left():
        charts = [call for call in world.cloud.chart_img.requests if call.status == 200]
        status = world.status(run_id, step_id)
        return status, len(charts), len(world.deployment.object_names()), world.unacked()

    world.wait_for(lambda: left() == LEFT[name], f"{LEFT[name]}, got {left()}", 5)


def test_a_frozen_daemon_does_nothing_until_it_wakes(world):
    """A frozen daemon does nothing until it wakes, then continues."""
    worker = world.worker().started()
    run_id, step_ids = world.put_run()
    strike = Strike(world, POINTS["first chart asked"], worker.freeze)
    world.publish(run_id, step_ids)
    strike.wait()
    lines = len(worker.events)
    assert not world.holds_within(
        lambda: len(worker.events) > lines or world.deployment.object_names() != [], 1.0
    )
    worker.wake()
    worker.wait_for_event("step_completed")
    assert [disturbance.kind for disturbance in worker.disturbances] == ["freeze"]
