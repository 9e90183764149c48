"""The backlog of one subscription: ready, delayed and leased messages. Without clock, threads or RPCs."""

from __future__ import annotations

import heapq
import itertools
import math
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
    """A message of one subscription.

    Attributes:
        message: The raw `PubsubMessage`.
        added: When it was added, on the caller's monotonic clock in seconds.
        order: Its place among the messages with its ordering key.
        attempts: Its deliveries so far.
    """

    message: Any
    added: float = 0.0
    order: int = 0
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
        retention_seconds: A message that is not delivered for so long is dropped.
        dead: Messages past their last attempt, for the owner to forward.
    """

    prefix: str
    rules: RetryRules
    retention_seconds: float = math.inf
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

    def add(self, message: Any, now: float = 0.0) -> None:
        """Add a new message, ready at once."""
        self._ready.append(Delivery(message, now))

    def messages(self) -> list[Any]:
        """Return all unacknowledged raw messages, in no order."""
        delayed = (delivery for _, _, delivery in self._delayed)
        leased = (lease.delivery for lease in self._leases.values())
        return [delivery.message for delivery in itertools.chain(self._ready, delayed, leased)]

    def clear(self) -> None:
        """Drop all messages and leases. Their ack ids have no effect from now on."""
        for ack_id in list(self._leases):
            self._end(ack_id)
        self._ready.clear()
        self._delayed.clear()
        self._deadlines.clear()

    def take(self, now: float, *, limit: int, lease_seconds: float, window: Window) -> list[Lease]:
        """Lease up to `limit` ready messages, as long as `window` is open."""
        self.advance(now)
        taken: list[Lease] = []
        while self._ready and len(taken) < limit and window.open:
            taken.append(self._lease(self._ready.popleft(), now + lease_seconds, window))
        return taken

    def acknowledge(self, ack_ids: Iterable[str], now: float) -> list[str]:
        """Acknowledge messages; return the ids without effect, because they are unknown or expired."""
        self.advance(now)
        return [ack_id for ack_id in ack_ids if self._end(ack_id) is None]

    def nack(self, ack_ids: Iterable[str], now: float) -> list[str]:
        """Nack messages: they are delivered again as the rules say. Return the ids without effect."""
        self.advance(now)
        unknown = []
        for ack_id in ack_ids:
            lease = self._end(ack_id)
            if lease is None:
                unknown.append(ack_id)
            else:
                self._fail(lease.delivery, now)
        return unknown

    def extend(self, ack_ids: Iterable[str], now: float, lease_seconds: float) -> list[str]:
        """Set the end of leases to `lease_seconds` from now; return the ids without effect."""
        self.advance(now)
        unknown = []
        for ack_id in ack_ids:
            lease = self._leases.get(ack_id)
            if lease is None:
                unknown.append(ack_id)
            else:
                lease.deadline = now + lease_seconds
                heapq.heappush(self._deadlines, (lease.deadline, ack_id))
        return unknown

    def advance(self, now: float) -> None:
        """End leases past their deadline, make delayed messages ready, and drop those kept for too long."""
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, ack_id = heapq.heappop(self._deadlines)
            lease = self._leases.get(ack_id)
            if lease is not None and lease.deadline == deadline:  # else extended since, or settled
                self._end(ack_id)
                self._fail(lease.delivery, deadline)
        while self._delayed and self._delayed[0][0] <= now:
            self._ready.append(heapq.heappop(self._delayed)[2])
        while self._ready and self._ready[0].added + self.retention_seconds <= now:
            self._ready.popleft()

    def next_change(self) -> float | None:
        """Return when `advance` can next have an effect; None = never by time alone."""
        moments = [heap[0][0] for heap in (self._deadlines, self._delayed) if heap]
        return min(moments, default=None)

    def _lease(self, delivery: Delivery, deadline: float, window: Window) -> Lease:
        delivery.attempts += 1
        lease = Lease(f"{self.prefix}:{next(self._serial)}", delivery, deadline, window)
        self._leases[lease.ack_id] = lease
        heapq.heappush(self._deadlines, (lease.deadline, lease.ack_id))
        window.add(1, delivery.message.ByteSize())
        return lease

    def _end(self, ack_id: str) -> Lease | None:
        lease = self._leases.pop(ack_id, None)
        if lease is not None:
            lease.window.add(-1, -lease.delivery.message.ByteSize())
        return lease

    def _fail(self, delivery: Delivery, now: float) -> None:
        rules = self.rules
        if 0 < rules.max_delivery_attempts <= delivery.attempts:
            self.dead.append(delivery)
        else:
            wait = rules.backoff_seconds(delivery.attempts)
            self._again(delivery, now + wait if wait > 0 else None)

    def _again(self, delivery: Delivery, ready_at: float | None = None) -> None:
        """Make a message that was delivered before ready again, at once or at a moment."""
        if ready_at is None:
            self._ready.append(delivery)
        else:
            heapq.heappush(self._delayed, (ready_at, next(self._serial), delivery))
