"""Collect the facts for the invariants from a world whose work has ended."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.chaos.end_state import Completion, EndState, PaidChart, StoredFile
from tests.chaos.invariants import violations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.fleet import Worker
    from tests.chaos.world import World

CALM_SECONDS = 45.0
#: More than a drain: the machine may be busy.
STOP_SECONDS = 60.0


def finish(
    world: World, *, calm_seconds: float = CALM_SECONDS, meanwhile: Callable[[], None] = lambda: None
) -> EndState:
    """Wait until all work has ended, stop the daemons, and check the invariants.

    Args:
        world: The world.
        calm_seconds: How long the work may take.
        meanwhile: Called again and again while it is waited for.

    Raises:
        AssertionError: An invariant does not hold, or a daemon did not stop properly.
    """

    def is_calm() -> bool:
        meanwhile()
        return world.calm()

    world.holds_within(is_calm, calm_seconds)  # unfinished work is then a violation
    asked = [worker for worker in world.workers if worker.alive and not worker.stopping]
    for worker in asked:
        worker.signal(signal.SIGTERM)
    for worker in world.workers:
        if worker.starved and not worker.ends_within(STOP_SECONDS):
            worker.kill()
        worker.wait(STOP_SECONDS)
    # Acks that a silent connection has taken can't be waited for: then the drain ends by its time.
    steady = [worker for worker in asked if not worker.starved and not worker.is_disturbed]
    codes = {worker.key: worker.process.returncode for worker in steady}
    state = end_state(world)
    found = violations(state)
    assert found == [], "\n".join(found)
    assert set(codes.values()) <= {0}, codes
    return state


def end_state(world: World) -> EndState:
    """Return the facts."""
    found, claims = world.history.facts()  # empty when the daemons use another Firestore
    return EndState(
        bucket=world.deployment.bucket,
        expected=tuple(world.expected.values()),
        runs=world.read_runs(),
        transitions=found or None,
        claims=claims,
        leases=tuple(world.documents.leases()),
        files=dict(_files(world)),
        paid=tuple(paid_charts(world)),
        disturbances=(
            *world.outages,
            *(disturbance for worker in world.workers for disturbance in worker.disturbances),
        ),
        unacked=world.unacked(),
        completions=tuple(_completions(world)),
        oddities=tuple(text for worker in world.workers for text in _oddities(worker)),
        clock_slack_seconds=world.clock_slack_seconds,
    )


def paid_charts(world: World) -> Iterator[PaidChart]:
    """Return the charts in the provider's log."""
    pids = {worker.key: worker.process.pid for worker in world.workers}
    for call in world.cloud.chart_img.requests:
        if call.status == 200:
            template_id = str(call.body["symbol"]).partition(":")[0]
            yield PaidChart(template_id=template_id, daemon=call.key, at=call.at, pid=pids[call.key])


def _files(world: World) -> Iterator[tuple[str, StoredFile]]:
    for blob in world.deployment.objects.list_blobs(world.deployment.bucket, prefix="charts/"):
        content = blob.download_as_bytes() if blob.name.endswith(".json") else b""
        created, updated = blob.time_created.timestamp(), blob.updated.timestamp()
        yield blob.name, StoredFile(created=created, updated=updated, content=content)


def _completions(world: World) -> Iterator[Completion]:
    for worker in world.workers:
        for line in worker.named("step_completed"):
            if line.get("code") == "CRASH_LOOP":
                continue  # logged by the worker that ended a dead worker's step
            yield Completion(pid=worker.process.pid, run_id=line["runId"], step_id=line["stepId"])


def _oddities(worker: Worker) -> Iterator[str]:
    if worker.starved:
        return
    for line in worker.named("internal_error"):
        yield f"{worker.key} has an internal error: {line['message']} {line.get('exception', '')[-1000:]}"
    code = worker.process.returncode
    if code == -signal.SIGKILL:
        return  # a killed daemon's last line can be cut off
    yield from (f"{worker.key} printed {line!r}" for line in worker.other_output)
    if code is not None and code not in worker.exits:
        yield f"{worker.key} ended with exit code {code}"
