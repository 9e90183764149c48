"""The name and the time limits of a document or object that a check writes and deletes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import WorkerError
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

#: Together less than the time limit of a check.
TRIAL_SECONDS = 10.0
CLEAN_UP_SECONDS = 9.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A document or an object with a random name.

    Attributes:
        run: After it is stopped, the check only deletes what it wrote.
        name: The random name.
        trial_seconds: The time limit of everything before the deletion.
        clean_up_seconds: The time limit of the deletion, independent of the trial.
    """

    run: CancelScope
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    trial_seconds: float = TRIAL_SECONDS
    clean_up_seconds: float = CLEAN_UP_SECONDS

    def trial(self) -> CancelScope:
        """Start the time limit of the trial.

        A stop of the run takes effect only between two calls. A call that was cut off could still be carried
        out after the deletion.
        """
        scope = CancelScope(seconds=self.trial_seconds, clock=SystemClock())
        scope.guard(self.run.check_stopped)
        return scope

    def clean_up(self) -> CancelScope:
        """Start the time limit of the deletion, which nothing stops."""
        return CancelScope(seconds=self.clean_up_seconds, clock=SystemClock())


def failure_of(operation: Callable[[], object]) -> WorkerError | None:
    """Run the operation, and return its error or None."""
    try:
        operation()
    except WorkerError as error:
        return error
    return None
