"""A lease: who works a RUNNING step, under which token, and until when. Pure.

One document for each claimed step, `flow_runs/{runId}/chart_export_leases/{stepId}`. Its `update_time` is the
fence: whoever changes or deletes it names the `update_time` he last saw, so that a holder whose lease was
taken over can write nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

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
