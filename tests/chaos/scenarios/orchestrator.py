"""The orchestrator changes a step during the work."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.chaos.gathering import finish
from tests.chaos.strikes import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.world import World

#: A third of a lease until the next heartbeat, two seconds to stop, and time to settle the message.
NOTICED_SECONDS = 7.0


def _in_the_middle(world: World, change: Callable[[str, str], None], status: str) -> None:
    """Change a step during its chart request; the worker stops without waiting for the response."""
    gate = Gate(world, "chart_img", "advanced-chart")
    worker = world.worker().started()
    run_id, (step_id,) = world.put_run()
    world.expect(run_id, step_id, status, meddled=True)
    world.publish(run_id, [step_id])
    gate.wait_until_reached()
    change(run_id, step_id)
    if status == "SUCCEEDED":
        worker.wait_until(lambda: _claims(worker) >= 2, "a second claim", NOTICED_SECONDS)
    else:
        worker.wait_for_event("message_settled", timeout_seconds=NOTICED_SECONDS)
    gate.open()
    finish(world)


def _claims(worker) -> int:
    return sum(line["claimed"] for line in worker.named("claim_attempt"))


def _set(status: str, world: World) -> None:
    final = "SUCCEEDED" if status == "READY" else status
    _in_the_middle(world, lambda run_id, step_id: world.set_status(run_id, step_id, status), final)


def deleted_step(world: World) -> None:
    """A deleted step is not finalized."""
    _in_the_middle(world, world.delete_step, "GONE")


def deleted_run(world: World) -> None:
    """When a run is deleted its lease is deleted too."""
    _in_the_middle(world, lambda run_id, _: world.delete_run(run_id), "GONE")


SCENARIOS: dict[str, Callable[[World], None]] = {
    "cancelled in the middle": partial(_set, "CANCELLED"),
    "reset in the middle": partial(_set, "READY"),
    "step deleted in the middle": deleted_step,
    "run deleted in the middle": deleted_run,
}
