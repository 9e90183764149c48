"""An upgrade under load: the former version works, the present one starts, the former one is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localcloud.faults import Fault
from tests.chaos.former_version import former_python
from tests.chaos.gathering import finish
from tests.chaos.strikes import POINTS, Strike

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.chaos.fleet import Worker
    from tests.chaos.world import World

RUNS, STEPS, CHARTS = 12, 10, 2
CALM_SECONDS = 90.0
USAGE = "chart_img_accounts_usage/first"


def upgrade(world: World) -> str:
    """Upgrade two daemons while they work; one daemon of each version is killed on the way.

    Raises:
        AssertionError: A step was lost or done twice, or a daemon did not stop properly.
    """
    former = [world.worker(python=former_python()).started() for _ in range(2)]
    world.cloud.chart_img.faults.add(Fault(delay_seconds=0.5))
    runs = [world.put_run(steps=STEPS, charts=CHARTS) for _ in range(RUNS)]
    for run_id, step_ids in runs:
        world.publish(run_id, step_ids)
    _wait_for_ends(world, former, 20)
    present = [world.worker().started() for _ in range(2)]
    _wait_for_ends(world, present, 20)
    former[0].kill_now()
    present[0].kill_now()
    present.append(world.worker().started())
    _wait_for_ends(world, present[1:], 40)
    former[1].send_stop()
    state = finish(world, calm_seconds=CALM_SECONDS)
    _check_usage(world)
    return (
        f"{len(state.expected)} steps, none lost, none done twice; {_ended(former)} by the former version, "
        f"{_ended(present)} by the present one; {_taken_over(former)} and {_taken_over(present)} taken over; "
        f"one of each killed, exit code of the former one at SIGTERM {former[1].process.returncode}"
    )


def take_over(world: World, *, dead: Path | None, heir: Path | None) -> None:
    """A daemon of one version ends the step of a killed one of another version. None is the present one."""
    victim = world.worker(python=dead, REQUEST_CONCURRENCY="1").started()
    run_id, step_ids = world.put_run()
    strike = Strike(world, POINTS["second upload lost"], victim.kill_now)
    world.publish(run_id, step_ids)
    strike.wait()
    world.worker(python=heir).started()
    state = finish(world)
    assert len(state.paid) == CHARTS + 1  # the chart whose upload was lost
    _check_usage(world)


def share_an_account(world: World) -> None:
    """Daemons of both versions spend the calls of one account, to its limit and not beyond."""
    limit = 15
    world.deployment.documents.document(USAGE).set({"dailyLimit": limit})
    for python in (former_python(), None):
        world.worker(python=python, WORKER_CONCURRENCY="2").started()
    run_id, step_ids = world.put_run(steps=STEPS, charts=CHARTS)
    for step_id in step_ids:
        world.expect(run_id, step_id, "SUCCEEDED", "FAILED")
    world.publish(run_id, step_ids)
    state = finish(world)
    assert len(state.paid) == limit, len(state.paid)
    assert {paid.daemon for paid in state.paid} == {worker.key for worker in world.workers}


def _wait_for_ends(world: World, workers: Sequence[Worker], count: int) -> None:
    world.wait_for(lambda: _ended(workers) >= count or not world.unfinished(), f"{count} steps", 90)


def _ended(workers: Sequence[Worker]) -> int:
    return sum(len(worker.named("step_completed")) for worker in workers)


def _taken_over(workers: Sequence[Worker]) -> int:
    return sum(len(worker.named("lease_taken_over")) for worker in workers)


def _check_usage(world: World) -> None:
    """Both versions count in one document: no call is missing in it."""
    usage = world.deployment.documents.document(USAGE).get().to_dict()
    calls = world.cloud.chart_img.calls["advanced-chart"]
    assert usage is not None
    assert usage["usageToday"] >= calls, (usage, calls)
