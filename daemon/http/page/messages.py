"""Observe the deliveries, and remember the messages that this worker rejected or deferred."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from worker_chart_export.observability.observers import Observer, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from worker_chart_export.observability.observers import About

#: The limit of remembered messages of each fate.
MAX_MESSAGES = 50
MAX_DETAIL_CHARS = 300
#: A deferred message that did not come back for so long was delivered to another worker, or is done.
FORGET_SECONDS = 900.0

_current: ContextVar[dict[str, str | int] | None] = ContextVar("delivery_on_the_page", default=None)


class Fate(StrEnum):
    """What this worker did with a message that it did not ack as done."""

    REJECTED = "REJECTED"
    DEFERRED = "DEFERRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageNote:
    """A message that was rejected or deferred.

    Attributes:
        disposition: `ack`, `nack`, `defer` or `drop`.
        reason: A stable code.
        detail: The reason as a sentence.
        run_id: The run that it names; empty if that is not known.
        step_id: The step that it names, if any.
        deliveries: Pub/Sub's count of its deliveries, or else that of this process.
        at: When it was settled, by the clock of the observer, in seconds since 1970.
        again_at: When Pub/Sub delivers it again, if that is known.
    """

    message_id: str
    fate: Fate
    disposition: str
    reason: str
    detail: str
    run_id: str
    step_id: str
    deliveries: int
    at: float
    again_at: float | None


class Messages(Observer):
    """An observer of `worker_chart_export.observability.observers`. Shared by all threads.

    Args:
        clock: Seconds since 1970 by a clock that is never set.
    """

    stages = frozenset({Stage.DELIVERY})

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._notes: dict[Fate, OrderedDict[str, MessageNote]] = {fate: OrderedDict() for fate in Fate}

    def snapshot(self) -> list[MessageNote]:
        """Return the messages, the latest first."""
        with self._lock:
            deferred = self._notes[Fate.DEFERRED]
            earliest = self._clock() - FORGET_SECONDS
            for note in list(deferred.values()):
                if (note.again_at or note.at) < earliest:
                    del deferred[note.message_id]
            notes = [note for notes in self._notes.values() for note in notes.values()]
        return sorted(notes, key=lambda note: note.at, reverse=True)

    def stage(self, stage: Stage, about: About, carrier: Mapping[str, str]) -> AbstractContextManager[object]:
        """Begin a delivery."""
        del stage, carrier
        return self._delivery(about)

    def annotated(self, about: About) -> None:
        """Note what the message names, and how it was settled. Facts of other stages are left out."""
        facts = _current.get()
        if facts is not None and ("disposition" in about or "runId" in about):
            facts.update(about)

    @contextmanager
    def _delivery(self, about: About) -> Iterator[None]:
        facts = dict(about)
        token = _current.set(facts)
        try:
            yield
        finally:
            _current.reset(token)
            self._end_delivery(facts)

    def _end_delivery(self, facts: Mapping[str, str | int]) -> None:
        """Note the message; forget a deferred one that is now done. A nack gives it back: it says nothing."""
        message_id, disposition = str(facts["messageId"]), facts.get("disposition")
        fate = None
        if "rejected" in facts:
            fate = Fate.REJECTED
        elif disposition in {"defer", "drop"}:
            fate = Fate.DEFERRED
        with self._lock:
            before = None
            if fate or disposition == "ack":
                found = [notes.pop(message_id, None) for notes in self._notes.values()]
                before = next(filter(None, found), None)
            if fate:
                notes = self._notes[fate]
                notes[message_id] = _note(fate, facts, before, now=self._clock())
                if len(notes) > MAX_MESSAGES:
                    notes.popitem(last=False)


def _note(
    fate: Fate, facts: Mapping[str, str | int], before: MessageNote | None, *, now: float
) -> MessageNote:
    deliveries = facts.get("deliveryAttempt") or (1 if before is None else before.deliveries + 1)
    return MessageNote(
        message_id=str(facts["messageId"]),
        fate=fate,
        disposition=str(facts["disposition"]),
        reason=str(facts["reason"]),
        detail=str(facts.get("detail", ""))[:MAX_DETAIL_CHARS],
        run_id=str(facts.get("runId", "")),
        step_id=str(facts.get("stepId", "")),
        deliveries=int(deliveries),
        at=now,
        again_at=now + int(facts["delaySeconds"]) if "delaySeconds" in facts else None,
    )
