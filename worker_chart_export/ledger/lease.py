"""A lease: who works a RUNNING step, under which token, and until when. Pure.

One document for each claimed step, `flow_runs/{runId}/chart_export_leases/{stepId}`. Its `update_time` is the
fence: whoever changes or deletes it names the `update_time` he last saw, so that a holder whose lease was
taken over can write nothing more.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from worker_chart_export.errors import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.timing import Clock


LEASES = "chart_export_leases"
#: Holder of the lease that is put beside a step some worker runs without one.
UNKNOWN_OWNER = "unknown"
#: A holder stops itself before its lease is over by the clock skew, but never by more than this share of it.
MAX_FENCE_SHARE = 0.25
BEATS_PER_LEASE = 3
#: Counts beyond this are nobody's, and Firestore could not store one more.
MAX_COUNT = 10**9
#: What can't be read as a time: such a lease is over.
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """The settings that leases go by.

    Attributes:
        lease_seconds: How long a lease lasts without a heart-beat.
        clock_skew_seconds: How much later than written a lease counts as over that nobody released.
        max_attempts: Claims without a release after which a step is failed instead of taken over.
        unleased_grace_seconds: How long a step may be RUNNING without a lease; 0 = for ever.
    """

    lease_seconds: float = 120.0
    clock_skew_seconds: float = 5.0
    max_attempts: int = 5
    unleased_grace_seconds: float = 3600.0

    @property
    def renew_every_seconds(self) -> float:
        """Seconds between two heart-beats."""
        return self.lease_seconds / BEATS_PER_LEASE

    @property
    def trusted_seconds(self) -> float:
        """How long after asking for it a holder trusts its lease."""
        return self.lease_seconds - min(self.clock_skew_seconds, MAX_FENCE_SHARE * self.lease_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease as its document says it.

    Attributes:
        owner: host:pid:boot id of the process.
        token: Random, made once for each claim; empty once the holder released it.
        attempt: Which claim of the step this is, from 1.
        released: How many of the claims ended in a release.
        started_at: When the step was first claimed; kept by take-overs.
        acquired_at: When this claim was made.
        expires_at: When it is over, unless it is renewed.
        message_id: The message under which it was taken; empty for a rescue.
    """

    owner: str
    token: str
    attempt: int
    released: int
    started_at: datetime
    acquired_at: datetime
    expires_at: datetime
    message_id: str

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Lease:
        """Read a lease document; what is missing or broken in it counts against its holder."""
        return cls(
            owner=str(document.get("owner") or UNKNOWN_OWNER),
            token=str(document.get("token") or ""),
            attempt=_count(document.get("attempt"), least=1),
            released=_count(document.get("released"), least=0),
            started_at=_instant(document.get("startedAt")),
            acquired_at=_instant(document.get("acquiredAt")),
            expires_at=_instant(document.get("expiresAt")),
            message_id=str(document.get("messageId") or ""),
        )

    def to_document(self) -> dict[str, Any]:
        """The document's fields; times are Firestore timestamps."""
        return {
            "owner": self.owner,
            "token": self.token,
            "attempt": self.attempt,
            "released": self.released,
            "startedAt": self.started_at,
            "acquiredAt": self.acquired_at,
            "expiresAt": self.expires_at,
            "messageId": self.message_id,
        }

    @property
    def is_released(self) -> bool:
        """Whether nobody holds it: its holder gave the step back."""
        return not self.token or self.released >= self.attempt

    def seconds_left(self, now: datetime, *, clock_skew_seconds: float) -> float:
        """Seconds from `now`, the server's time, until the step may be taken over; never below zero."""
        allowed = 0.0 if self.is_released else clock_skew_seconds
        return max(0.0, (self.expires_at - now).total_seconds() + allowed)

    def released_until(self, expires_at: datetime) -> Lease:
        """The same lease given back: to be taken over from `expires_at` on."""
        return replace(self, token="", released=self.released + 1, expires_at=expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLease:
    """A lease with the `update_time` that its next change has to name."""

    lease: Lease
    update_time: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOffer:
    """What a claimer would write: made once, before its first commit.

    Attributes:
        finished_at: RFC 3339; marks the failure of a step that is in a crash loop.
    """

    owner: str
    token: str
    message_id: str
    finished_at: str
    terms: LeaseTerms

    def first(self, now: datetime) -> Lease:
        """The lease of a step that was READY."""
        return Lease(
            owner=self.owner,
            token=self.token,
            attempt=1,
            released=0,
            started_at=now,
            acquired_at=now,
            expires_at=now + timedelta(seconds=self.terms.lease_seconds),
            message_id=self.message_id,
        )

    def after(self, earlier: Lease, now: datetime) -> Lease:
        """The lease that takes over from `earlier`."""
        started_at = now if earlier.started_at == NEVER else earlier.started_at
        return replace(
            self.first(now), attempt=earlier.attempt + 1, released=earlier.released, started_at=started_at
        )


def unleased(*, token: str, now: datetime, grace_seconds: float) -> Lease:
    """The lease put beside a step that a worker without leases runs."""
    return Lease(
        owner=UNKNOWN_OWNER,
        token=token,
        attempt=1,
        released=0,
        started_at=now,
        acquired_at=now,
        expires_at=now + timedelta(seconds=grace_seconds),
        message_id="",
    )


def _count(value: Any, *, least: int) -> int:
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    return min(MAX_COUNT, max(least, int(value))) if is_count else least


def _instant(value: object) -> datetime:
    return value if isinstance(value, datetime) and value.tzinfo is not None else NEVER


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
