"""A lease this process holds: what it last wrote, how long it may be trusted, and who is told of its loss."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from worker_chart_export.errors import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_chart_export.ledger.lease.lease import Lease, StoredLease
    from worker_chart_export.timing import Clock


class HeldLease:
    """A lease of this process, from its claim to its end. Shared by all threads.

    `lock` serialises what is done to its document: a heart-beat and a finalize that ran side by side would
    each take the other for a stranger.

    Args:
        run_id: The run.
        step_id: The step.
        stored: The lease as written.
        trusted_until: Until when it may be trusted, on the monotonic clock.
        clock: Its monotonic clock is used.
    """

    def __init__(
        self, *, run_id: str, step_id: str, stored: StoredLease, trusted_until: float, clock: Clock
    ) -> None:
        self.run_id = run_id
        self.step_id = step_id
        self.lock = threading.Lock()
        self._clock = clock
        self._stored = stored
        self._trusted_until = trusted_until
        self._guard = threading.Lock()
        self._lost: LeaseLost | None = None
        self._on_lost: list[Callable[[LeaseLost], None]] = []

    @property
    def stored(self) -> StoredLease:
        """The lease as this process last wrote or read it."""
        return self._stored

    @property
    def lease(self) -> Lease:
        """What it says."""
        return self._stored.lease

    @property
    def trusted_until(self) -> float:
        """Until when it may be trusted, on the monotonic clock."""
        return self._trusted_until

    @property
    def is_lost(self) -> bool:
        """Whether it is known to be lost."""
        return self._lost is not None

    def renewed(self, stored: StoredLease, *, trusted_until: float) -> None:
        """Note what a heart-beat wrote."""
        self._stored = stored
        self._trusted_until = trusted_until

    def reread(self, stored: StoredLease) -> None:
        """Note a newer `update_time` of our own lease: a write of ours whose answer was lost had landed."""
        self._stored = stored

    def check(self) -> None:
        """Return while the lease may be trusted.

        Raises:
            LeaseLost: It was taken, or it ended without a heart-beat. A process that was frozen comes here
                after it wakes, before it pays for anything.
        """
        if self._lost is None and self._clock.monotonic() >= self._trusted_until:
            self.lose("it ended before it was renewed")
        if self._lost is not None:
            raise self._lost

    def on_lost(self, callback: Callable[[LeaseLost], None]) -> None:
        """Call `callback` with the error once the lease is lost; at once if it already is."""
        with self._guard:
            self._on_lost.append(callback)
            lost = self._lost
        if lost is not None:
            callback(lost)

    def lose(self, reason: str) -> None:
        """The lease is somebody else's, or nobody's; the first reason stays."""
        with self._guard:
            if self._lost is not None:
                return
            self._lost = LeaseLost(f"the lease of the step is lost: {reason}")
            callbacks, lost = list(self._on_lost), self._lost
        for callback in callbacks:
            callback(lost)
