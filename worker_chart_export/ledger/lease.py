"""Leases: which worker holds a RUNNING step, under which token, and until when.

Each claimed step has one lease document, `flow_runs/{runId}/chart_export_leases/{stepId}`. Every change of it
names the `update_time` that the writer read last. So a worker whose step was taken over can't write any more.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from worker_chart_export.errors import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker_chart_export.timing import Clock

LEASES = "chart_export_leases"
#: The fields that only some leases have.
OPTIONAL = frozenset({"retriedBy", "retriedAt", "releasedBy"})
#: The owner of a lease that is created for a step which some worker runs without one.
UNKNOWN_OWNER = "unknown"
#: A worker stops trusting its lease by the clock skew before the end, but by at most this share of the lease.
MAX_FENCE_SHARE = 0.25
BEATS_PER_LEASE = 3
#: Larger counts in a document are wrong: no step gets so many claims.
MAX_COUNT = 10**9
#: Stands for a time that can't be read. A lease that ends then has expired.
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """The settings of leases.

    Attributes:
        lease_seconds: How long a lease lasts without a heartbeat.
        clock_skew_seconds: How much later than `expires_at` a lease expires that its worker did not release.
        max_attempts: Claims without a release, after which a step is failed and not taken over again.
        unleased_grace_seconds: How long a step may be RUNNING without a lease. 0: forever.
        max_work_seconds: How long after its claim a lease is renewed. Work that lasts longer hangs, and loses
            the step.
        heartbeat_seconds: Seconds between two heartbeats. None: a third of `lease_seconds`.

    Raises:
        ValueError: A value is out of range, or a lease would expire before its heartbeat.
    """

    lease_seconds: float = 120.0
    clock_skew_seconds: float = 5.0
    max_attempts: int = 5
    unleased_grace_seconds: float = 3600.0
    max_work_seconds: float = 3600.0
    heartbeat_seconds: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.lease_seconds < math.inf:
            raise ValueError(f"lease_seconds: expected a number above 0, got {self.lease_seconds!r:.80}")
        if not 0 < self.renew_every_seconds < self.trusted_seconds:
            raise ValueError(
                f"heartbeat_seconds: expected less than {self.trusted_seconds:g}, so that a lease of "
                f"{self.lease_seconds:g} s is renewed in time, got {self.renew_every_seconds!r:.80}"
            )
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts: expected 1 or more, got {self.max_attempts!r:.80}")
        for name in ("clock_skew_seconds", "unleased_grace_seconds", "max_work_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)!r:.80}")

    @property
    def renew_every_seconds(self) -> float:
        """Seconds between two heartbeats."""
        if self.heartbeat_seconds is not None:
            return self.heartbeat_seconds
        return self.lease_seconds / BEATS_PER_LEASE

    @property
    def trusted_seconds(self) -> float:
        """Seconds for which a worker trusts a new or renewed lease, from before the call that wrote it."""
        return self.lease_seconds - min(self.clock_skew_seconds, MAX_FENCE_SHARE * self.lease_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The content of a lease document.

    Attributes:
        owner: host:pid:boot id of the process.
        token: Random, made once for each claim. Empty after a release.
        attempt: Which claim of the step this is, from 1.
        released: How many of the claims ended in a release.
        started_at: When the step was first claimed. Kept when another worker takes the step over.
        acquired_at: When this claim was made.
        expires_at: When the lease expires, unless it is renewed.
        message_id: The message that led to the claim. Empty for a rescue.
        retried_by: The operator (user@host) who made a FAILED step READY again. Kept by take-overs. With
            `attempt` 0 no worker has claimed the step since.
        retried_at: When that was.
        released_by: The operator who has released the lease. The next claim clears it.
    """

    owner: str
    token: str
    attempt: int
    released: int
    started_at: datetime
    acquired_at: datetime
    expires_at: datetime
    message_id: str
    retried_by: str = ""
    retried_at: datetime | None = None
    released_by: str = ""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Lease:
        """Read a lease document. A field that is missing or broken makes the lease expired or released."""
        retried_by, retried_at = str(document.get("retriedBy") or ""), _instant(document.get("retriedAt"))
        return cls(
            owner=str(document.get("owner") or UNKNOWN_OWNER),
            token=str(document.get("token") or ""),
            attempt=_count(document.get("attempt"), least=0 if retried_by else 1),
            released=_count(document.get("released"), least=0),
            started_at=_instant(document.get("startedAt")),
            acquired_at=_instant(document.get("acquiredAt")),
            expires_at=_instant(document.get("expiresAt")),
            message_id=str(document.get("messageId") or ""),
            retried_by=retried_by,
            retried_at=None if retried_at == NEVER else retried_at,
            released_by=str(document.get("releasedBy") or ""),
        )

    @property
    def claimed_by(self) -> dict[str, Any]:
        """What a result says about its claim, because the lease ends with it."""
        return {"attempt": self.attempt, "owner": self.owner}

    def to_document(self) -> dict[str, Any]:
        """Return the fields of the document. Times are Firestore timestamps. `OPTIONAL` fields may lack."""
        optional = {
            "retriedBy": self.retried_by,
            "retriedAt": self.retried_at,
            "releasedBy": self.released_by,
        }
        return {
            "owner": self.owner,
            "token": self.token,
            "attempt": self.attempt,
            "released": self.released,
            "startedAt": self.started_at,
            "acquiredAt": self.acquired_at,
            "expiresAt": self.expires_at,
            "messageId": self.message_id,
            **{name: value for name, value in optional.items() if value},
        }

    @property
    def is_for_retry(self) -> bool:
        """Whether an operator wrote it for the next claim of a READY step. It shows no worker."""
        return self.attempt == 0

    @property
    def may_have_charts(self) -> bool:
        """Whether an earlier claim may have stored charts under the same names."""
        return self.started_at != self.acquired_at

    @property
    def trying_since(self) -> datetime:
        """When the work on the step began: the first claim, or the retry of it."""
        return self.started_at if self.retried_at is None else max(self.started_at, self.retried_at)

    @property
    def is_released(self) -> bool:
        """Whether its worker released the step."""
        return not self.token or self.released >= self.attempt

    def is_valid_at(self, now: datetime) -> bool:
        """Whether a worker holds the step at `now`, the server's time, as far as this lease shows.

        A lease of an unknown owner shows no worker: it only ends the time of one that has no lease.
        """
        return bool(self.token) and self.owner != UNKNOWN_OWNER and now < self.expires_at

    def seconds_left(self, now: datetime, *, clock_skew_seconds: float) -> float:
        """Return the seconds from `now`, the server's time, until the step may be taken over; at least 0."""
        allowed = 0.0 if self.is_released else clock_skew_seconds
        return max(0.0, (self.expires_at - now).total_seconds() + allowed)

    def released_until(self, expires_at: datetime, *, is_attempt: bool = False) -> Lease:
        """Return this lease as released: the step may be taken over from `expires_at` on.

        Args:
            expires_at: The server's time.
            is_attempt: The claim counts as one of the step's attempts, because the step caused its end.
        """
        released = self.released + (0 if is_attempt else 1)
        return replace(self, token="", released=released, expires_at=expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLease:
    """A lease with the `update_time` that its next change must name."""

    lease: Lease
    update_time: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOffer:
    """What a claim puts into the lease. Made once, before its first commit.

    Attributes:
        finished_at: RFC 3339. Marks the failure of a step that is in a crash loop.
    """

    owner: str
    token: str
    message_id: str
    finished_at: str
    terms: LeaseTerms

    def first(self, now: datetime) -> Lease:
        """Return the lease of a step that was READY."""
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
        """Return the lease that takes over from `earlier`, or that follows the lease of a retry."""
        started_at = now if earlier.started_at == NEVER else earlier.started_at
        return replace(
            self.first(now),
            attempt=earlier.attempt + 1,
            released=earlier.released,
            started_at=started_at,
            retried_by=earlier.retried_by,
            retried_at=earlier.retried_at,
        )


def unleased(*, token: str, now: datetime, grace_seconds: float) -> Lease:
    """Return the lease to create for a step that some worker runs without one."""
    terms = LeaseTerms(lease_seconds=grace_seconds)
    return LeaseOffer(owner=UNKNOWN_OWNER, token=token, message_id="", finished_at="", terms=terms).first(now)


class HeldLease:
    """A lease that this process holds, from the claim to the end of the work. Shared by all threads.

    Take `lock` around each write of the lease document. Otherwise a heartbeat and a finalize at the same time
    would each find an unknown `update_time`, as if the lease was lost.

    Attributes:
        stored: The lease as this process last wrote or read it.
        trusted_until: Until when the lease may be trusted, on the monotonic clock.

    Args:
        run_id: The run.
        step_id: The step.
        stored: The lease as the claim wrote it.
        trusted_until: See above.
        clock: Its monotonic clock is used.
        server_time: Returns the server's time for a time on the monotonic clock. Without it or its result the
            wall clock is used.
        flow_key: The run's flow key, for log lines.
    """

    def __init__(
        self,
        *,
        run_id: str,
        step_id: str,
        stored: StoredLease,
        trusted_until: float,
        clock: Clock,
        server_time: Callable[[float], datetime | None] = lambda _monotonic: None,
        flow_key: str | None = None,
    ) -> None:
        self.run_id = run_id
        self.step_id = step_id
        self.stored = stored
        self.trusted_until = trusted_until
        self.lock = threading.Lock()
        self.flow_key = flow_key
        self._clock = clock
        self._server_time = server_time
        self._claimed_at = clock.monotonic()
        self._guard = threading.Lock()
        self._lost: LeaseLost | None = None
        self._on_lost: list[Callable[[LeaseLost], None]] = []

    @property
    def lease(self) -> Lease:
        """The content of the lease."""
        return self.stored.lease

    @property
    def is_lost(self) -> bool:
        """Whether the lease is known to be lost."""
        return self._lost is not None

    def age_seconds(self) -> float:
        """Return the time since this process claimed the step."""
        return self._clock.monotonic() - self._claimed_at

    def server_time(self) -> datetime:
        """Return the present time by the server's clock, because that of this machine may be wrong."""
        return self._server_time(self._clock.monotonic()) or self._clock.now()

    def check(self) -> None:
        """Return while the lease may be trusted.

        A process that was frozen finds out here that its lease has expired, before it pays for anything.

        Raises:
            LeaseLost: Another worker has taken the lease, or it ended without a heartbeat.
        """
        if self._lost is None and self._clock.monotonic() >= self.trusted_until:
            self.lose("it ended before it was renewed")
        if self._lost is not None:
            raise self._lost

    def on_lost(self, callback: Callable[[LeaseLost], None]) -> None:
        """Call `callback` with the error when the lease is lost; at once if it is lost already."""
        with self._guard:
            self._on_lost.append(callback)
            lost = self._lost
        if lost is not None:
            callback(lost)

    def lose(self, reason: str) -> None:
        """Note that this process has lost the lease, and call the callbacks. The first reason counts."""
        with self._guard:
            if self._lost is not None:
                return
            self._lost = LeaseLost(f"the lease of the step is lost: {reason}")
            callbacks, lost = list(self._on_lost), self._lost
        for callback in callbacks:
            callback(lost)


def _count(value: Any, *, least: int) -> int:
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    return min(MAX_COUNT, max(least, int(value))) if is_count else least


def _instant(value: object) -> datetime:
    return value if isinstance(value, datetime) and value.tzinfo is not None else NEVER
