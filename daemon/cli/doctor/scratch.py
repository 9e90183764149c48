"""What is written for a trial: its name, the time for it, and the time that is kept to delete it again."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import WorkerError
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

#: Together less than a check may take.
TRIAL_SECONDS = 10.0
CLEAN_UP_SECONDS = 9.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A document or an object of a random name.

    Attributes:
        run: Once it is stopped, nothing is left to be done but to delete.
        name: Nobody else's.
        trial_seconds: For all that is tried.
        clean_up_seconds: For the deletion, whatever the trial took.
    """

    run: CancelScope
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    trial_seconds: float = TRIAL_SECONDS
    clean_up_seconds: float = CLEAN_UP_SECONDS

    def trial(self) -> CancelScope:
        """The time for the trial, from now on.

        A stop of the run is seen between two calls only: a call that is cut off may be carried out after the
        deletion.
        """
        scope = CancelScope(seconds=self.trial_seconds, clock=SystemClock())
        scope.guard(self.run.check_stopped)
        return scope

    def clean_up(self) -> CancelScope:
        """The time for the deletion, from now on; nothing stops it."""
        return CancelScope(seconds=self.clean_up_seconds, clock=SystemClock())


def failure_of(operation: Callable[[], object]) -> WorkerError | None:
    """Why the operation failed, or None."""
    try:
        operation()
    except WorkerError as error:
        return error
    return None
