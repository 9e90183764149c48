"""What the orchestrator does during a storm: new runs, full runs, repeated messages, changed steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.disturbances.stage import Stage

REPEATED_BY_RUN = 0.3
MAX_RUNS_UNFINISHED = 12
#: The bytes that are left for each step of a run that is nearly full.
FREE_BYTES = (10, 60, 200, 400, 1000)


def put_run(stage: Stage) -> None:
    """Store a run, and publish its steps in any order."""
    if _has_enough(stage):
        return
    steps, charts = stage.random.randint(1, 8), stage.random.randint(1, 3)
    run_id, step_ids = stage.world.put_run(steps=steps, charts=charts)
    _publish(stage, run_id, step_ids)


def put_full_run(stage: Stage) -> None:
    """Store a run whose document has hardly room for its results: a step may then only be FAILED."""
    if _has_enough(stage):
        return
    steps = stage.random.randint(1, 4)
    run_id, step_ids = stage.world.put_run(steps=steps, charts=stage.random.randint(1, 2))
    stage.world.fill_run(run_id, free_bytes=steps * stage.random.choice(FREE_BYTES))
    for step_id in step_ids:
        stage.world.expect(run_id, step_id, "SUCCEEDED", "FAILED")
    _publish(stage, run_id, step_ids)
    stage.done["full documents"] += 1


def _has_enough(stage: Stage) -> bool:
    return len({expected.run_id for expected in stage.world.unfinished()}) > MAX_RUNS_UNFINISHED


def _publish(stage: Stage, run_id: str, step_ids: list[str]) -> None:
    stage.random.shuffle(step_ids)
    stage.send(run_id, step_ids)
    if stage.random.random() < REPEATED_BY_RUN:
        stage.world.deliver([{"runId": run_id}])


def repeat(stage: Stage) -> None:
    """Publish a step once more."""
    chosen = stage.any_unfinished()
    if chosen:
        _publish(stage, chosen.run_id, [chosen.step_id])


def meddle(stage: Stage) -> None:
    """Cancel, reset or delete an unfinished step."""
    chosen = stage.any_unfinished()
    if chosen is None or "FAILED" in chosen.statuses:  # a full document has no room for that
        return
    status = stage.random.choice(["CANCELLED", "READY", "GONE"])
    ends = {"READY": ["SUCCEEDED"]}.get(status, [status, "SUCCEEDED"])
    stage.world.expect(chosen.run_id, chosen.step_id, *ends, meddled=True)
    stage.world.meddle(chosen.run_id, chosen.step_id, status)
    if status == "READY":
        _publish(stage, chosen.run_id, [chosen.step_id])
    stage.done["meddlings"] += 1
