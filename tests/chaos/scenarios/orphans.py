"""Leases that other workers left: expired, missing, or without a step; and wrong clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from localcloud.faults import Fault
from tests.chaos.gathering import finish
from tests.support.process.shifted_clocks import SHIFTED, Clocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.world import World

HOUR_SECONDS = 3600


def put_lease(world: World, run_id: str, step_id: str, **fields: Any) -> None:
    """Write a lease of a dead owner that expired an hour ago."""
    past = datetime.now(UTC) - timedelta(hours=1)
    lease = {
        "owner": "gone:1:boot",
        "token": "of-the-dead",
        "attempt": 1,
        "released": 0,
        "startedAt": past,
        "acquiredAt": past,
        "expiresAt": past,
        "messageId": "1",
        **fields,
    }
    world.documents.write(lambda batch: batch.set(world.documents.lease(run_id, step_id), lease))


def two_rescuers(world: World) -> None:
    """Several rescuers take over many abandoned steps without messages, each step once."""
    run_id, step_ids = world.put_run(steps=8, charts=1, status="RUNNING")
    for step_id in step_ids:
        put_lease(world, run_id, step_id)
    workers = [world.worker().started() for _ in range(3)]
    state = finish(world)
    taken = [line["stepId"] for worker in workers for line in worker.named("lease_taken_over")]
    assert sorted(taken) == step_ids
    assert len(state.paid) == 8


def crash_loop(world: World) -> None:
    """After five crashed attempts the step fails and no more charts are paid for."""
    run_id, (step_id,) = world.put_run(status="RUNNING")
    world.expect(run_id, step_id, "FAILED")
    put_lease(world, run_id, step_id, attempt=5)
    world.worker().started()
    state = finish(world)
    assert world.deployment.step(run_id, step_id)["error"]["code"] == "CRASH_LOOP"
    assert state.paid == ()


def without_lease(world: World) -> None:
    """A RUNNING step without a lease is taken over after the grace period."""
    run_id, (step_id,) = world.put_run(status="RUNNING")
    worker = world.worker(UNLEASED_GRACE_SECONDS="3").started()
    world.publish(run_id, [step_id])
    worker.wait_for_event("step_unleased")

    def owners() -> list[str]:
        return [lease["owner"] for lease in world.documents.leases().values()]

    world.wait_for(lambda: owners() == ["unknown"], "a lease of nobody's", 2)
    finish(world)


def stale_lease(world: World) -> None:
    """A lease of a READY step does not block it and is replaced."""
    run_id, (step_id,) = world.put_run()
    put_lease(world, run_id, step_id)
    world.worker().started()
    world.wait_for(lambda: not world.documents.leases(), "the stale lease to go")
    assert world.status(run_id, step_id) == "READY"
    put_lease(world, run_id, step_id, expiresAt=datetime.now(UTC) + timedelta(hours=1))
    world.publish(run_id, [step_id])
    finish(world)


def run_gone(world: World) -> None:
    """A lease without a run is deleted by the first worker that finds it."""
    run_id, (step_id,) = world.put_run()
    world.expect(run_id, step_id, "GONE", meddled=True)
    put_lease(world, run_id, step_id)
    world.delete_run(run_id)
    world.worker().started()
    finish(world)


def wrong_clock(offset_seconds: int, world: World) -> None:
    """A daemon with a wrong clock takes over no valid lease, and takes over an expired one."""
    world.clock_slack_seconds = abs(offset_seconds)
    world.cloud.chart_img.faults.add(Fault(delay_seconds=9.0, times=1))
    holder = world.worker().started()
    with TemporaryDirectory() as folder:
        clocks = Clocks(Path(folder))
        clocks.shift(wall=offset_seconds)
        wrong = world.worker(module=SHIFTED, **clocks.environment).started()
    run_id, step_ids = world.put_run(charts=1)
    world.publish(run_id, step_ids)
    world.wait_for(lambda: not world.unfinished(), "a step longer than its lease")
    assert [line for worker in (holder, wrong) for line in worker.named("lease_taken_over")] == []
    holder.kill_now()
    again, step_ids = world.put_run(charts=1)
    world.publish(again, step_ids)
    finish(world)


SCENARIOS: dict[str, Callable[[World], None]] = {
    "two rescuers": two_rescuers,
    "crash loop": crash_loop,
    "without lease": without_lease,
    "stale lease": stale_lease,
    "run gone": run_gone,
    "a clock ahead": partial(wrong_clock, HOUR_SECONDS),
    "a clock behind": partial(wrong_clock, -HOUR_SECONDS),
}
