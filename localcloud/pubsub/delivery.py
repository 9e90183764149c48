"""The backlog of one subscription: ready, delayed and leased messages. Without clock, threads or RPCs."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryRules:
    """Rules for a message that was nacked or whose lease expired.

    Attributes:
        minimum_backoff_seconds: The wait after the first failure; it doubles with each further one. 0 = none.
        maximum_backoff_seconds: The longest wait.
        max_delivery_attempts: Deliveries before a message is dead-lettered; 0 = no dead-letter policy.
    """

    minimum_backoff_seconds: float = 0.0
    maximum_backoff_seconds: float = 0.0
    max_delivery_attempts: int = 0

    def backoff_seconds(self, failures: int) -> float:
        """Return the wait after this number of failures (at least one)."""
        # The exponent is capped: 2.0**64 is larger than any maximum.
        return min(self.minimum_backoff_seconds * 2.0 ** min(failures - 1, 64), self.maximum_backoff_seconds)


@dataclass(slots=True)
class Window:
    """The flow control of one receiver. A maximum of 0 or less means no limit."""

    max_messages: int = 0
    max_bytes: int = 0
    messages: int = 0
    bytes: int = 0

    @property
    def open(self) -> bool:
        """Return whether one more message may be delivered."""
        return (self.max_messages <= 0 or self.messages < self.max_messages) and (
            self.max_bytes <= 0 or self.bytes < self.max_bytes
        )

    def add(self, messages: int, size_bytes: int) -> None:
        """Count delivered messages; negative numbers count released ones."""
        self.messages += messages
        self.bytes += size_bytes


@dataclass(slots=True)
class Delivery:
    """A message of one subscription. `attempts` counts its deliveries so far."""

    message: Any
    attempts: int = 0


@dataclass(slots=True)
class Lease:
    """A delivered message. `deadline` is on the caller's monotonic clock, in seconds."""

    ack_id: str
    delivery: Delivery
    deadline: float
    window: Window


@dataclass(slots=True)
class Backlog:
    """All unacknowledged messages of a subscription. `now` is the caller's monotonic clock in seconds.

    Attributes:
        prefix: Makes ack ids unique across all subscriptions.
        rules: Backoff and dead-lettering.
        dead: Messages past their last attempt, for the owner to forward.
    """

    prefix: str
    rules: RetryRules
    dead: list[Delivery] = field(default_factory=list)
    _ready: deque[Delivery] = field(default_factory=deque)
    _delayed: list[tuple[float, int, Delivery]] = field(default_factory=list)
    _leases: dict[str, Lease] = field(default_factory=dict)
    _deadlines: list[tuple[float, str]] = field(default_factory=list)
    _serial: itertools.count[int] = field(default_factory=itertools.count)

    def __len__(self) -> int:
        return len(self._ready) + len(self._delayed) + len(self._leases)

    @property
    def leased(self) -> int:
        """Return the number of messages delivered and not settled."""
        return len(self._leases)

    def add(self, message: Any) -> None:
        """Add a new message, ready at once."""
        self._ready.append(Delivery(message))

    def take(self, now: float, *, limit: int, lease_seconds: float, window: Window) -> list[Lease]:
        """Lease up to `limit` ready messages, as long as `window` is open."""
        self.advance(now)
        taken: list[Lease] = []
        while self._ready and len(taken) < limit and window.open:
            delivery = self._ready.popleft()
            delivery.attempts += 1
            lease = Lease(f"{self.prefix}:{next(self._serial)}", delivery, now + lease_seconds, window)
            self._leases[lease.ack_id] = lease
            heapq.heappush(self._deadlines, (lease.deadline, lease.ack_id))
            window.add(1, delivery.message.ByteSize())
            taken.append(lease)
        return taken

    def acknowledge(self, ack_ids: Iterable[str], now: float) -> int:
        """Acknowledge messages and return how many. Unknown or expired ids have no effect."""
        self.advance(now)
        return sum(self._end(ack_id) is not None for ack_id in ack_ids)

    def nack(self, ack_ids: Iterable[str], now: float) -> None:
        """Nack messages: they are delivered again as the rules say."""
        self.advance(now)
        for ack_id in ack_ids:
            lease = self._end(ack_id)
            if lease is not None:
                self._fail(lease.delivery, now)

    def extend(self, ack_ids: Iterable[str], now: float, lease_seconds: float) -> None:
        """Set the end of leases to `lease_seconds` from now, earlier or later than before."""
        self.advance(now)
        for ack_id in ack_ids:
            lease = self._leases.get(ack_id)
            if lease is not None:
                lease.deadline = now + lease_seconds
                heapq.heappush(self._deadlines, (lease.deadline, ack_id))

    def advance(self, now: float) -> None:
        """End leases past their deadline, and make delayed messages ready when their wait is over."""
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, ack_id = heapq.heappop(self._deadlines)
            lease = self._leases.get(ack_id)
            if lease is not None and lease.deadline == deadline:  # else extended since, or settled
                self._end(ack_id)
                self._fail(lease.delivery, deadline)
        while self._delayed and self._delayed[0][0] <= now:
            self._ready.append(heapq.heappop(self._delayed)[2])

    def next_change(self) -> float | None:
        """Return when `advance` can next have an effect; None = never by time alone."""
        moments = [heap[0][0] for heap in (self._deadlines, self._delayed) if heap]
        return min(moments, default=None)

    def _end(self, ack_id: str) -> Lease | None:
        lease = self._leases.pop(ack_id, None)
        if lease is not None:
            lease.window.add(-1, -lease.delivery.message.ByteSize())
        return lease

    def _fail(self, delivery: Delivery, now: float) -> None:
        rules = self.rules
        if 0 < rules.max_delivery_attempts <= delivery.attempts:
            self.dead.append(delivery)
        elif (wait := rules.backoff_seconds(delivery.attempts)) > 0:
            heapq.heappush(self._delayed, (now + wait, next(self._serial), delivery))
        else:
            self._ready.append(delivery)
