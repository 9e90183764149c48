"""SIGTERM at random moments during the work."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

from localcloud.faults import Fault
from tests.chaos.gathering import finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.world import World

DRAIN_SECONDS = 3.0
#: The time that Python needs to exit after the drain on a busy machine.
EXIT_SECONDS = 2.0
CALM_SECONDS = 90.0
#: Sometimes longer than a drain, so that steps are released as well as finished.
CHART_SECONDS = 1.2


def sigterms(world: World, *, times: int, seed: int) -> str:
    """Stop `times` daemons; return a line of figures.

    Raises:
        AssertionError: A daemon did not stop properly, or a step or an ack was lost.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    world.cloud.chart_img.faults.add(Fault(delay_seconds=CHART_SECONDS))
    ends = [_one(world, chance) for _ in range(times)]
    world.worker(DRAIN_SECONDS=str(DRAIN_SECONDS)).started()
    state = finish(world, calm_seconds=CALM_SECONDS)
    lost = list(lost_acks(world))
    assert lost == [], lost
    codes = [code for code, _ in ends]
    return (
        f"{times} SIGTERMs, seed {seed}: exit 0 {codes.count(0)} times, exit 4 {codes.count(4)} times, "
        f"slowest {max(seconds for _, seconds in ends):.1f} s of {DRAIN_SECONDS:g} s, "
        f"{len(state.expected)} steps done, none lost, no ack of a finished step lost"
    )


def _one(world: World, chance: random.Random) -> tuple[int, float]:
    worker = world.worker(DRAIN_SECONDS=str(DRAIN_SECONDS), REQUEST_CONCURRENCY="1").started()
    run_id, step_ids = world.put_run(steps=3, charts=chance.randint(1, 4))
    world.publish(run_id, step_ids)
    threading.Event().wait(chance.uniform(0, 3 * CHART_SECONDS))
    asked_at = time.monotonic()
    worker.send_stop()
    code = worker.wait(DRAIN_SECONDS + EXIT_SECONDS)
    seconds = time.monotonic() - asked_at
    assert code in (0, 4), f"exit code {code}"
    return code, seconds


def lost_acks(world: World) -> Iterator[str]:
    """Return the messages that were acked and delivered again."""
    acked: set[str] = set()
    for worker in world.workers:
        for line in worker.named("message_received"):
            if line["messageId"] in acked:
                yield f"{line['messageId']} came again to {worker.key}"
        acked |= {
            line["messageId"] for line in worker.named("message_settled") if line["disposition"] == "ack"
        }
