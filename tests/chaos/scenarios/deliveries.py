"""Pub/Sub delivers twice, late and in any order, loses acks and extensions, resets streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localcloud.faults import Fault
from tests.chaos.gathering import finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.world import World


def duplicates(world: World) -> None:
    """Each message is sent five times to two daemons and duplicated at random; each chart is made once."""
    world.cloud.pubsub.faults.add(Fault(method="Deliver", duplicate=True, probability=0.5, times=20))
    for _ in range(2):
        world.worker().started()
    run_id, step_ids = world.put_run(steps=6)
    for _ in range(5):
        world.publish(run_id, step_ids)
    state = finish(world)
    assert len(state.paid) == 12


def reordered(world: World) -> None:
    """Messages arrive before and after their run, of both kinds, in random order."""
    world.cloud.pubsub.faults.add(
        Fault(method="Deliver", drop=True, times=3)
    )  # these are delivered 10 s later
    world.worker().started()
    run_id, step_ids = world.put_run(steps=4, status="PENDING")
    world.publish_run(run_id)
    world.publish(run_id, step_ids[::-1])
    for step_id in step_ids[::2]:
        world.set_status(run_id, step_id, "READY")
    world.publish_run(run_id)
    for step_id in step_ids[1::2]:
        world.set_status(run_id, step_id, "READY")
    finish(world)


def lost_acks(world: World) -> None:
    """After a lost ack the message comes back and finds no work."""
    lost = world.cloud.pubsub.faults.add(Fault(method="Acknowledge", drop=True, times=2))
    world.worker().started()
    run_id, step_ids = world.put_run(steps=3)
    world.publish(run_id, step_ids)
    finish(world)
    assert world.cloud.pubsub.faults.fired(lost) == 2
    assert any(worker.named("step_noop") for worker in world.workers)


def ack_deadline_expires(world: World) -> None:
    """A message with lost extensions comes back during the work; there is still one export."""
    lost = world.cloud.pubsub.faults.add(Fault(method="ModifyAckDeadline", drop=True))
    world.cloud.chart_img.faults.add(Fault(delay_seconds=12.0, times=1))
    for _ in range(2):
        world.worker().started()
    run_id, step_ids = world.put_run(charts=1)
    world.publish(run_id, step_ids)
    world.wait_for(lambda: world.cloud.pubsub.calls["Deliver"] >= 2, "a second delivery", 20)
    world.cloud.pubsub.faults.remove(lost)
    state = finish(world)
    assert len(state.paid) == 1


def stream_resets(world: World) -> None:
    """Streams end again and again during the work."""
    world.cloud.chart_img.faults.add(Fault(delay_seconds=0.3))
    for _ in range(2):
        world.worker(WORKER_CONCURRENCY="2").started()
    run_id, step_ids = world.put_run(steps=12)
    world.publish(run_id, step_ids)
    for round_number in range(1, 6):
        done = 2 * round_number
        world.wait_for(lambda done=done: len(step_ids) - len(world.unfinished()) >= done, f"{done} steps")
        world.cloud.pubsub.reset_streams()
    finish(world, calm_seconds=75)


SCENARIOS: dict[str, Callable[[World], None]] = {
    "duplicates": duplicates,
    "reordered": reordered,
    "lost acks": lost_acks,
    "ack deadline expires": ack_deadline_expires,
    "stream resets": stream_resets,
}
