"""The backlog of a subscription with ordering: messages of a key are delivered as they were published."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from localcloud.pubsub.delivery import Backlog, Delivery, Lease, Window


@dataclass(slots=True)
class _Key:
    """The messages of one ordering key.

    Attributes:
        waiting: Those not leased, in order.
        leased: The others by ack id, in order. The key is held until all these leases have ended.
    """

    waiting: deque[Delivery] = field(default_factory=deque)
    leased: dict[str, Delivery] = field(default_factory=dict)


@dataclass
class OrderedBacklog(Backlog):
    """A backlog that keeps the order of each ordering key. Messages without a key are not ordered.

    A call gets messages of a key only when no other call holds some. When one of them fails, those after it
    are delivered again too, and their old ack ids have no effect. Messages acknowledged before are not.
    """

    _keys: dict[str, _Key] = field(default_factory=dict)
    _backoff_ends: dict[str, float] = field(default_factory=dict)  # of keys whose first message has failed

    def __len__(self) -> int:
        return super().__len__() + sum(len(key.waiting) for key in self._keys.values())

    def add(self, message: Any, now: float = 0.0) -> None:
        """Add a new message behind those of its key."""
        if message.ordering_key:
            key = self._keys.setdefault(message.ordering_key, _Key())
            key.waiting.append(Delivery(message, now, order=next(self._serial)))
        else:
            super().add(message, now)

    def messages(self) -> list[Any]:
        """Return all unacknowledged raw messages, in no order."""
        waiting = [delivery.message for key in self._keys.values() for delivery in key.waiting]
        return super().messages() + waiting

    def clear(self) -> None:
        """Drop all messages and leases. Their ack ids have no effect from now on."""
        super().clear()
        self._keys.clear()
        self._backoff_ends.clear()

    def take(self, now: float, *, limit: int, lease_seconds: float, window: Window) -> list[Lease]:
        """Lease up to `limit` ready messages, and of each key only when no call holds one of its messages."""
        taken = super().take(now, limit=limit, lease_seconds=lease_seconds, window=window)
        for name, key in self._keys.items():
            if key.leased or name in self._backoff_ends:
                continue
            while key.waiting and len(taken) < limit and window.open:
                delivery = key.waiting.popleft()
                if delivery.added + self.retention_seconds > now:
                    lease = self._lease(delivery, now + lease_seconds, window)
                    key.leased[lease.ack_id] = delivery
                    taken.append(lease)
        return taken

    def advance(self, now: float) -> None:
        """End leases past their deadline and backoffs that are over."""
        super().advance(now)
        for name in [name for name, end in self._backoff_ends.items() if end <= now]:
            del self._backoff_ends[name]

    def next_change(self) -> float | None:
        """Return when `advance` can next have an effect; None = never by time alone."""
        moments = [super().next_change(), *self._backoff_ends.values()]
        return min((moment for moment in moments if moment is not None), default=None)

    def _end(self, ack_id: str) -> Lease | None:
        lease = super()._end(ack_id)
        if lease is not None and lease.delivery.message.ordering_key:
            name = lease.delivery.message.ordering_key
            del self._keys[name].leased[ack_id]
            if not (self._keys[name].leased or self._keys[name].waiting):
                del self._keys[name]
        return lease

    def _fail(self, delivery: Delivery, now: float) -> None:
        if delivery.message.ordering_key:
            self._return_later(delivery)
        super()._fail(delivery, now)

    def _again(self, delivery: Delivery, ready_at: float | None = None) -> None:
        name = delivery.message.ordering_key
        if not name:
            super()._again(delivery, ready_at)
            return
        self._keys.setdefault(name, _Key()).waiting.appendleft(delivery)
        if ready_at is not None:
            self._backoff_ends[name] = ready_at

    def _return_later(self, failed: Delivery) -> None:
        """End the leases of the messages that come after a failed one of the same key."""
        name = failed.message.ordering_key
        key = self._keys.get(name, _Key())
        later = [ack_id for ack_id, other in key.leased.items() if other.order > failed.order]
        returned = [lease.delivery for ack_id in later if (lease := self._end(ack_id))]
        if returned:
            self._keys.setdefault(name, _Key()).waiting.extendleft(reversed(returned))
