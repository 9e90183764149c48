"""A storm: random faults and disturbances of all kinds from one seed, then the invariants."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.gathering import end_state, finish
from tests.chaos.random_faults import RandomFaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.fleet import Worker
    from tests.chaos.world import World

DAEMONS = 3
TICK_SECONDS = 0.25
#: The longest deferral plus the longest release plus the work.
CALM_SECONDS = 150.0
#: High enough that no step of a storm ends as a crash loop because of the kills.
SETTINGS = {"MAX_ATTEMPTS": "50", "STEP_TIMEOUT_SECONDS": "120", "WORKER_CONCURRENCY": "6"}
REPEATED_BY_RUN = 0.3
MAX_RUNS_UNFINISHED = 12


@dataclass(kw_only=True)
class Report:
    """The figures of a storm.

    Attributes:
        seed: The seed of all its random choices.
        steps: The number of requested steps.
        faults: The number of fired faults.
        done: The number of each other disturbance.
        ends: The number of steps per final status.
    """

    seed: int
    steps: int = 0
    faults: int = 0
    done: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Return one line of text."""
        done = ", ".join(f"{name} {count}" for name, count in sorted(self.done.items()))
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.ends.items()))
        return f"seed {self.seed}: {self.steps} steps, {self.faults} faults injected; {done}; {ends}"


class Storm:
    """One storm.

    Args:
        world: Made with `SETTINGS`.
        seed: The seed of all its random choices.
        seconds: Its duration.
    """

    def __init__(self, world: World, *, seed: int, seconds: float) -> None:
        self._world = world
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._faults = RandomFaults(world.cloud, self._random)
        self._seconds = seconds
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._actions: dict[Callable[[], None], int] = {
            self._worsen: 12,
            self._put_run: 8,
            self._kill: 2,
            self._freeze: 2,
            self._stop: 1,
            self._reset_streams: 1,
            self._outage: 1,
            self._meddle: 2,
            self._repeat: 2,
        }
        self.report = Report(seed=seed)

    def run(self) -> Report:
        """Run the storm, wait until all work has ended, and check the invariants.

        Raises:
            AssertionError: An invariant does not hold; the report is in `report`.
        """
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            self._keep_daemons()
            self._do_what_is_due()
            (action,) = self._random.choices(list(self._actions), list(self._actions.values()))
            action()
            time.sleep(self._random.uniform(0, 2 * TICK_SECONDS))
        self._calm_down()
        try:
            finish(self._world, calm_seconds=CALM_SECONDS)
        finally:
            self._take_stock()
        return self.report

    # Disturbances

    def _worsen(self) -> None:
        self._faults.arm_one()

    def _put_run(self) -> None:
        if len({expected.run_id for expected in self._world.unfinished()}) > MAX_RUNS_UNFINISHED:
            return
        steps, charts = self._random.randint(1, 8), self._random.randint(1, 3)
        run_id, step_ids = self._world.put_run(steps=steps, charts=charts)
        self._random.shuffle(step_ids)
        self._send(run_id, step_ids)

    def _send(self, run_id: str, step_ids: list[str]) -> None:
        """Publish messages by a way without faults: a message that was never published needs no work."""
        self._world.deliver([{"runId": run_id, "stepId": step_id} for step_id in step_ids])
        if self._random.random() < REPEATED_BY_RUN:
            self._world.deliver([{"runId": run_id}])

    def _repeat(self) -> None:
        chosen = self._any_unfinished()
        if chosen:
            self._send(chosen[0], [chosen[1]])

    def _kill(self) -> None:
        self._strike("kills", lambda worker: worker.kill_now())

    def _stop(self) -> None:
        self._strike("SIGTERMs", lambda worker: worker.send_sigterm())

    def _freeze(self) -> None:
        def freeze(worker: Worker) -> None:
            worker.freeze()
            self._later.append((time.monotonic() + self._random.uniform(0.5, 12), worker.wake))

        self._strike("freezes", freeze)

    def _strike(self, name: str, do: Callable[[Worker], None]) -> None:
        fit = [worker for worker in self._on_duty() if worker.named("daemon_started")]
        if fit:
            do(self._random.choice(fit))
            self.report.done[name] += 1

    def _reset_streams(self) -> None:
        self._world.cloud.pubsub.reset_streams()
        self.report.done["stream resets"] += 1

    def _outage(self) -> None:
        name = self._random.choice(sorted(self._world.cloud.services))
        service = self._world.cloud.services[name]
        if not service.running:
            return
        service.stop()
        self._world.outage(name, seconds=60)
        self._later.append((time.monotonic() + self._random.uniform(0.5, 5), service.start))
        self.report.done["outages"] += 1

    def _meddle(self) -> None:
        """As the orchestrator, cancel, reset or delete an unfinished step."""
        chosen = self._any_unfinished()
        if chosen is None:
            return
        status = self._random.choice(["CANCELLED", "READY", "GONE"])
        ends = {"READY": ["SUCCEEDED"]}.get(status, [status, "SUCCEEDED"])
        self._world.expect(*chosen, *ends, meddled=True)
        self._world.meddle(*chosen, status)
        if status == "READY":
            self._send(chosen[0], [chosen[1]])
        self.report.done["meddlings"] += 1

    def _any_unfinished(self) -> tuple[str, str] | None:
        left = self._world.unfinished()
        chosen = self._random.choice(left) if left else None
        return (chosen.run_id, chosen.step_id) if chosen else None

    # Start and end

    def _on_duty(self) -> list[Worker]:
        alive = [worker for worker in self._world.workers if worker.alive]
        return [worker for worker in alive if not worker.stopping and not worker.stalled_at]

    def _keep_daemons(self) -> None:
        working = [worker for worker in self._world.workers if worker.alive and not worker.stopping]
        for _ in range(DAEMONS - len(working)):
            self._world.worker()

    def _do_what_is_due(self) -> None:
        due = [do for at, do in self._later if at <= time.monotonic()]
        self._later = [(at, do) for at, do in self._later if at > time.monotonic()]
        for do in due:
            do()

    def _calm_down(self) -> None:
        self._faults.clear()
        for _, do in self._later:
            do()
        self._keep_daemons()
        for worker in self._on_duty():
            worker.started()

    def _take_stock(self) -> None:
        state = end_state(self._world)
        self.report.steps = len(state.expected)
        self.report.faults = self._faults.struck
        self.report.ends = Counter(
            str((state.step(expected) or {"status": "GONE"})["status"]) for expected in state.expected
        )
