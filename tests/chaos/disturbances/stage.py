"""What all disturbances of one storm share: the world, chance, counts, and what is due later."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.chaos.end_state import Expected
    from tests.chaos.fleet import Worker
    from tests.chaos.world import World


@dataclass(kw_only=True)
class Stage:
    """A world during a storm.

    Attributes:
        world: The world.
        random: The source of all random choices.
        done: How often each kind of disturbance was done.
        refuses_until: When a daemon may end with exit code 3 no more (monotonic): its subscription was
            missing or forbidden.
    """

    world: World
    random: Random
    done: Counter[str] = field(default_factory=Counter)
    refuses_until: float = 0.0
    _later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Call `do` after these seconds, or when the storm ends."""
        self._later.append((time.monotonic() + seconds, do))

    def do_what_is_due(self, *, at: float | None = None) -> None:
        """Do what is due at a time of the monotonic clock; None is now."""
        now = time.monotonic() if at is None else at
        due = [do for moment, do in self._later if moment <= now]
        self._later = [(moment, do) for moment, do in self._later if moment > now]
        for do in due:
            do()

    def may_refuse(self, seconds: float) -> None:
        """Allow exit code 3: for these seconds the subscription is missing or forbidden."""
        self.refuses_until = max(self.refuses_until, time.monotonic() + seconds)
        for worker in self.world.workers:
            if worker.alive:
                worker.exits.add(3)

    @property
    def refuses(self) -> bool:
        """Return whether the subscription may be missing or forbidden now."""
        return time.monotonic() < self.refuses_until

    def on_duty(self) -> list[Worker]:
        """Return the daemons that run and were not asked to stop."""
        alive = [worker for worker in self.world.workers if worker.alive]
        return [worker for worker in alive if not worker.stopping and not worker.stalled_at]

    def strike(
        self, name: str, do: Callable[[Worker], None], *, fit: Callable[[Worker], object] = bool
    ) -> None:
        """Do something to one of the daemons that have started and are fit for it."""
        chosen = [worker for worker in self.on_duty() if worker.named("daemon_started") and fit(worker)]
        if chosen:
            with suppress(ProcessLookupError, FileNotFoundError):  # it has just ended by itself
                do(self.random.choice(chosen))
                self.done[name] += 1

    def any_unfinished(self) -> Expected | None:
        """Return a step without an allowed final status."""
        left = self.world.unfinished()
        return self.random.choice(left) if left else None

    def send(self, run_id: str, step_ids: list[str]) -> None:
        """Publish messages by a way without faults: a message that was never published needs no work."""
        self.world.deliver([{"runId": run_id, "stepId": step_id} for step_id in step_ids])
