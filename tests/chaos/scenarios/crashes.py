"""Daemons are killed or frozen at every stage boundary of a step, and another takes over."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.chaos.gathering import finish, paid_charts
from tests.chaos.strikes import POINTS, STRIKE_SECONDS, Gate, Strike

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.fleet import Worker
    from tests.chaos.world import World

#: The boundaries between stages. `POINTS` also has moments within stages.
BOUNDARIES = (
    "reading the run",
    "claim lost",
    "claim landed",
    "first chart asked",
    "second upload lost",
    "manifest lost",
    "manifest landed",
    "finalize lost",
    "finalize landed",
    "ack lost",
)
#: The points at which a frozen daemon holds a lease.
HOLDING = (
    "first chart asked",
    "first upload lost",
    "first upload landed",
    "second chart asked",
    "second upload lost",
    "manifest lost",
    "manifest landed",
    "finalize lost",
)
#: The points at which a frozen daemon has not yet received the response of its claim.
CLAIMING = ("reading the run", "claim lost", "claim landed")
#: Calls that are delayed until another daemon has finished the step.
HELD = ("claim landed", "second upload landed", "manifest landed", "finalize landed")
#: Charts are made one by one, so that there is a moment between two uploads.
ONE_BY_ONE = {"REQUEST_CONCURRENCY": "1"}


def killed(point: str, world: World) -> None:
    """Another daemon ends the step, and no stored chart is paid for again."""
    victim = world.worker(**ONE_BY_ONE).started()
    run_id, step_ids = world.put_run()
    strike = Strike(world, POINTS[point], victim.kill_now)
    world.publish(run_id, step_ids)
    strike.wait()
    world.worker(**ONE_BY_ONE).started()
    finish(world)


def frozen(point: str, world: World, *, wakes_early: bool = False) -> None:
    """A daemon that was frozen past its lease writes nothing and pays for nothing when it wakes.

    Args:
        point: The call at which it freezes.
        world: The world of the scenario.
        wakes_early: It wakes while the new owner is still working, not after the step has ended.
    """
    victim = world.worker(**ONE_BY_ONE).started()
    run_id, (step_id,) = world.put_run()
    strike = Strike(world, POINTS[point], victim.freeze)
    world.publish(run_id, [step_id])
    strike.wait()
    _hang_up_on(point, world)
    # A take-over lists the stored objects: the winner waits at this call.
    gate = Gate(world, "storage", "objects.list") if wakes_early else None
    world.worker(**ONE_BY_ONE).started()
    if gate:
        gate.wait_until_reached()
    else:
        world.wait_for(lambda: world.status(run_id, step_id) == "SUCCEEDED", "the winner")
    before = None if gate else world.result(run_id, step_id)
    woken_at = time.time()
    victim.wake()
    _wait_for_its_reaction(victim, holding=point in HOLDING)
    if gate:
        gate.open()
    _check_the_victim(world, victim, woken_at)
    assert before in (None, world.result(run_id, step_id))


def _hang_up_on(point: str, world: World) -> None:
    """Drop the streams: before the claim only the message brings the winner to the step."""
    if point in CLAIMING:
        world.cloud.pubsub.reset_streams()


def _wait_for_its_reaction(victim: Worker, *, holding: bool) -> None:
    """Wait for the log entry of a lost lease or, without a lease, of a message without work."""

    def has_reacted() -> bool:
        refused = [line["reason"] for line in victim.named("finalize_refused")]
        lost = bool(victim.named("lease_lost")) or bool({"fenced", "lease_lost"}.intersection(refused))
        return lost or (not holding and bool(victim.named("message_settled")))

    victim.wait_until(has_reacted, "a lost lease", 15)


def _check_the_victim(world: World, victim: Worker, woken_at: float) -> None:
    finish(world)
    assert victim.named("step_completed") == []
    late = [paid for paid in paid_charts(world) if paid.daemon == victim.key and paid.at >= woken_at]
    assert late == []


def held(point: str, world: World) -> None:
    """A call delayed until another daemon has finished the step changes nothing."""
    victim = world.worker(**ONE_BY_ONE).started()
    run_id, (step_id,) = world.put_run()
    frozen_now, let_in = threading.Event(), threading.Event()

    def freeze_and_hold() -> None:
        victim.freeze()
        frozen_now.set()
        let_in.wait(2 * STRIKE_SECONDS)

    strike = Strike(world, POINTS[point], freeze_and_hold)
    world.publish(run_id, [step_id])
    assert frozen_now.wait(STRIKE_SECONDS)
    _hang_up_on(point, world)
    world.worker(**ONE_BY_ONE).started()
    world.wait_for(lambda: world.status(run_id, step_id) == "SUCCEEDED", "the winner")
    before = world.result(run_id, step_id)
    let_in.set()
    strike.wait()
    woken_at = time.time()
    victim.wake()
    _check_the_victim(world, victim, woken_at)
    assert world.result(run_id, step_id) == before


MORE: dict[str, Callable[[World], None]] = {
    **{f"killed, {point}": partial(killed, point) for point in POINTS},
    **{f"frozen, {point}": partial(frozen, point) for point in (*CLAIMING, *HOLDING)},
    **{f"frozen, wakes early, {point}": partial(frozen, point, wakes_early=True) for point in HOLDING},
    **{f"held, {point}": partial(held, point) for point in HELD},
}
#: Too slow for every test run: the long run plays these at all points.
FEW = {
    "frozen, wakes early": ("first chart asked", "manifest lost"),
    "held": ("claim landed", "finalize landed"),
}
SCENARIOS = {
    name: play
    for name, play in MORE.items()
    if name.rpartition(", ")[2] in FEW.get(name.rpartition(", ")[0], BOUNDARIES)
}
#: On the official emulators only points of Storage and Chart-IMG are possible: these are always embedded.
OFFICIAL: dict[str, Callable[[World], None]] = {
    "official, killed, second upload lost": partial(killed, "second upload lost"),
    "official, killed, manifest landed": partial(killed, "manifest landed"),
    "official, frozen, first chart asked": partial(frozen, "first chart asked"),
    "official, frozen, manifest landed": partial(frozen, "manifest landed"),
}
