"""A storm: random faults and disturbances of all kinds from one seed, then the invariants."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.crew import Crew
from tests.chaos.disturbances import orchestrator, processes, services
from tests.chaos.disturbances.stage import Stage
from tests.chaos.evidence import keep
from tests.chaos.gathering import end_state, finish
from tests.chaos.random_faults import RandomFaults

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.end_state import EndState
    from tests.chaos.world import World

TICK_SECONDS = 0.25
#: The longest deferral plus the longest release plus the work.
CALM_SECONDS = 150.0
#: High enough that no step of a storm ends as a crash loop because of the kills.
SETTINGS = {"MAX_ATTEMPTS": "50", "STEP_TIMEOUT_SECONDS": "120", "WORKER_CONCURRENCY": "6"}
#: The disturbances that happen in every storm, and how often.
ALWAYS: dict[Callable[[Stage], None], int] = {
    orchestrator.put_run: 160,
    orchestrator.meddle: 40,
    orchestrator.repeat: 40,
    processes.kill: 40,
    processes.freeze: 40,
    processes.stop: 20,
    services.reset_streams: 20,
    services.outage: 20,
}
#: The other disturbances.
KINDS: dict[Callable[[Stage], None], int] = {
    processes.hang_up: 20,
    processes.suspend: 20,
    processes.set_clock: 20,
    processes.use_up_descriptors: 10,
    processes.use_up_memory: 5,
    processes.half_open: 20,
    services.seek_back: 10,
}
#: Those that the former version can't bear: it fails steps for good because of them.
HARDER: dict[Callable[[Stage], None], int] = {
    orchestrator.put_full_run: 6,
    services.refuse_everything: 6,
    services.refuse_objects: 5,
    services.delete_subscription: 4,
}
FAULTS = 240
#: The share of the time at the beginning in which one daemon is of the former version.
FORMER_SHARE = 0.25


@dataclass(kw_only=True)
class Report:
    """The figures of a storm.

    Attributes:
        seed: The seed of all its random choices.
        steps: The number of requested steps.
        faults: The number of fired faults, by kind.
        done: The number of each other disturbance.
        ends: The number of steps per final status.
    """

    seed: int
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Return one line of text."""
        faults, done = _listed(self.faults), _listed(self.done)
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.ends.items()))
        return (
            f"seed {self.seed}: {self.steps} steps, {self.faults.total()} faults injected ({faults}); "
            f"{done}; {ends}"
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


class Storm:
    """One storm.

    Args:
        world: Made with `SETTINGS`.
        seed: The seed of all its random choices.
        seconds: Its duration.
        kinds: How many of `KINDS` and `HARDER` it has, by its seed; None = all.
        former: The interpreter of the former version. One daemon runs it during the first quarter, without
            the disturbances that it can't bear.
        calm_seconds: How long the work that is left may take afterwards.
    """

    def __init__(
        self,
        world: World,
        *,
        seed: int,
        seconds: float,
        kinds: int | None = None,
        former: Path | None = None,
        calm_seconds: float = CALM_SECONDS,
    ) -> None:
        self._world = world
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._stage = Stage(world=world, random=self._random)
        self._faults = RandomFaults(world.cloud, self._random)
        self._crew = Crew(self._stage, former=former)
        self._seconds, self._calm_seconds = seconds, calm_seconds
        others = {**KINDS, **HARDER}
        chosen = self._random.sample(list(others), len(others) if kinds is None else kinds)
        self._actions = {**ALWAYS, **{kind: others[kind] for kind in chosen}, self._worsen: FAULTS}
        self.report = Report(seed=seed, done=self._stage.done)

    def run(self) -> Report:
        """Run the storm, wait until all work has ended, and check the invariants.

        Raises:
            AssertionError: An invariant does not hold; the report is in `report`, and the note of the error
                names the folder with the logs.
        """
        services.keep_acked_messages(self._stage)
        with self._crew:
            if self._crew.has_former:
                self._rage(self._seconds * FORMER_SHARE)
                self._crew.upgrade()
                self._rage(self._seconds * (1 - FORMER_SHARE))
            else:
                self._rage(self._seconds)
            self._calm_down()
            try:
                state = finish(self._world, calm_seconds=self._calm_seconds, meanwhile=self._tend)
            except Exception as error:
                state = end_state(self._world)
                error.add_note(f"the logs of the daemons are in {keep(self._world.workers, state)}")
                self._take_stock(state)
                raise
        self._take_stock(state)
        return self.report

    def _rage(self, seconds: float) -> None:
        bearable = {
            action: weight
            for action, weight in self._actions.items()
            if not (self._crew.has_former and action in HARDER)
        }
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._crew.keep()
            self._stage.do_what_is_due()
            (action,) = self._random.choices(list(bearable), list(bearable.values()))
            action(self._stage)
            self._world.history.take_out()
            time.sleep(self._random.uniform(0, 2 * TICK_SECONDS))

    def _worsen(self, _stage: Stage) -> None:
        self._faults.arm_one(harder=not self._crew.has_former)

    def _calm_down(self) -> None:
        self._faults.clear()
        self._stage.do_what_is_due(at=math.inf)
        self._crew.keep_at_once()

    def _tend(self) -> None:
        self._stage.do_what_is_due()
        self._crew.keep_at_once()

    def _take_stock(self, state: EndState) -> None:
        self.report.steps = len(state.expected)
        self.report.faults = self._faults.struck
        self.report.ends = Counter(
            str((state.step(expected) or {"status": "GONE"})["status"]) for expected in state.expected
        )
