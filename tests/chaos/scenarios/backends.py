"""Backends that fail before or after the effect, have contention, or stop and start."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from localcloud.faults import Fault
from tests.chaos.gathering import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.world import World

OUTAGE_SECONDS = 4.0
#: Ten times the sustained write rate of one Firestore document.
FOREIGN_WRITE_SECONDS = 0.1
#: The longest deferral and the step after it.
AFTER_AN_OUTAGE_SECONDS = 80.0


def unavailable(world: World, *, after_effect: bool) -> None:
    """Commits and heartbeats fail at random, before or after the effect."""
    run_id, step_ids = world.put_run(steps=6)
    faults = [
        world.cloud.firestore.faults.add(
            Fault(method=method, error=error, after_effect=after_effect, probability=0.5, times=3)
        )
        for method, error in (("Commit", "UNAVAILABLE"), ("Commit", "ABORTED"), ("BatchWrite", "UNAVAILABLE"))
        if not (after_effect and error == "ABORTED")  # this error promises that nothing was written
    ]
    world.cloud.chart_img.faults.add(Fault(delay_seconds=2.5))
    for _ in range(2):
        world.worker().started()
    world.publish(run_id, step_ids)
    state = finish(world, calm_seconds=AFTER_AN_OUTAGE_SECONDS)
    assert len(state.paid) == 12
    assert sum(world.cloud.firestore.faults.fired(fault) for fault in faults) > 0


def lost_answers(world: World) -> None:
    """The responses to claim and finalize are both lost; each counts once."""
    run_id, step_ids = world.put_run()
    lost = world.cloud.firestore.faults.add(
        Fault(method="Commit", match=run_id, error="UNAVAILABLE", after_effect=True, times=2)
    )
    world.worker().started()
    world.publish(run_id, step_ids)
    state = finish(world)
    assert world.cloud.firestore.faults.fired(lost) == 2
    assert len(state.paid) == 2


def no_heartbeats(world: World) -> None:
    """When heartbeats fail longer than a lease, the holder does not upload its charts."""
    world.outage("no heart-beats")
    silent = world.cloud.firestore.faults.add(Fault(method="BatchWrite", error="UNAVAILABLE"))
    world.cloud.chart_img.faults.add(Fault(delay_seconds=10.0, times=1))
    holder = world.worker().started()
    run_id, step_ids = world.put_run(charts=1)
    world.publish(run_id, step_ids)
    holder.wait_for_event("lease_lost", timeout_seconds=20)
    assert world.deployment.object_names() == []
    world.cloud.firestore.faults.remove(silent)
    finish(world)


def contention(world: World) -> None:
    """A foreign writer writes the run all the time, and half of the commits lose a race."""
    world.cloud.firestore.faults.add(Fault(method="Commit", contend=True, probability=0.5, times=20))
    for _ in range(2):
        world.worker().started()
    run_id, step_ids = world.put_run(steps=12)
    with _foreign_writer(world, run_id):
        world.publish(run_id, step_ids)
        world.wait_for(lambda: not world.unfinished(), "all steps in spite of it")
    state = finish(world)
    assert len(state.paid) == 24


@contextmanager
def _foreign_writer(world: World, run_id: str) -> Iterator[None]:
    over = threading.Event()

    def write() -> None:
        count = 0
        while not over.wait(FOREIGN_WRITE_SECONDS):
            count += 1
            world.note_progress(run_id, count)

    writer = threading.Thread(target=write, name="foreign-writer")
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


def restarted(service: str, world: World) -> None:
    """One backend stops during the work and starts again with its state."""
    world.cloud.chart_img.faults.add(Fault(delay_seconds=0.5))
    for _ in range(2):
        world.worker(WORKER_CONCURRENCY="4").started()
    run_id, step_ids = world.put_run(steps=16)
    world.publish(run_id, step_ids)
    world.wait_for(lambda: len(world.unfinished()) < len(step_ids), "a first step")
    # Charts without storage or lease are discarded, and paid for again.
    world.outage(service)
    world.cloud.services[service].stop()
    threading.Event().wait(OUTAGE_SECONDS)
    world.cloud.services[service].start()
    finish(world, calm_seconds=AFTER_AN_OUTAGE_SECONDS)


SCENARIOS: dict[str, Callable[[World], None]] = {
    **{
        f"restart of {name}": partial(restarted, name)
        for name in ("firestore", "storage", "pubsub", "chart_img")
    },
    "unavailable before the effect": partial(unavailable, after_effect=False),
    "unavailable after the effect": partial(unavailable, after_effect=True),
    "lost answers": lost_answers,
    "no heart-beats": no_heartbeats,
    "contention": contention,
}
