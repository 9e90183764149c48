"""The pause of the whole fleet: one document, which exists while an operator has paused all daemons.

It is created and deleted, never changed, so its `update_time` is the server's time of the pause. A document
that a person made by hand pauses the fleet too, whatever its fields are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.firestore import (
    create_document,
    delete_document,
    read_document,
    read_documents,
)
from worker_chart_export.errors import visible

if TYPE_CHECKING:
    from datetime import datetime

    from worker_chart_export.backends.firestore import LazySnapshot

#: The document: its collection and its id.
CONTROL, PAUSE = "chart_export_control", "pause"
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPause:
    """A pause of the fleet.

    Attributes:
        operator: Who paused it: user@host.
        reason: Why, or an empty string.
        since: When, by the server's clock.
    """

    operator: str
    reason: str
    since: datetime

    def __str__(self) -> str:
        sentence = f"operator {self.operator} paused the fleet at {self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"{sentence}: {self.reason}" if self.reason else sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRead:
    """The result of a read.

    Attributes:
        pause: The pause, or None when the fleet is not paused.
        read_time: The server's time of the read.
    """

    pause: FleetPause | None
    read_time: datetime


def read_pause(client: Any, *, timeout_seconds: float) -> PauseRead:
    """Read the pause once, without a retry: its caller reads it again soon.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(CONTROL).document(PAUSE)
    (found,) = read_documents(client, [reference], retry=None, timeout_seconds=timeout_seconds)
    return PauseRead(pause=_pause_of(found), read_time=found.read_time)


def pause_fleet(client: Any, *, operator: str, reason: str) -> tuple[FleetPause, bool]:
    """Pause the fleet. Return the pause, and False when the fleet was paused already and keeps that pause.

    Raises:
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(CONTROL).document(PAUSE)
    while True:  # ends: another operator would have to resume between each creation and its read
        is_new = create_document(reference, {"operator": operator, "reason": reason})
        pause = _pause_of(read_document(client, CONTROL, PAUSE))
        if pause is not None:
            return pause, is_new


def resume_fleet(client: Any) -> FleetPause | None:
    """End the pause. Return the pause that was ended, or None when there was none.

    Raises:
        LostRace: Another operator changed the pause since it was read. Nothing was changed.
        BackendUnavailable: Firestore is unavailable.
        BackendRefused: Firestore refuses.
    """
    found = read_document(client, CONTROL, PAUSE)
    pause = _pause_of(found)
    if pause is not None:
        delete_document(client, CONTROL, PAUSE, update_time=found.update_time)
    return pause


def _pause_of(found: LazySnapshot) -> FleetPause | None:
    """Return the pause of a document, or None when there is no document."""
    if found.fields is None or found.update_time is None:
        return None
    operator, reason = (_text(found.fields.get(name)) for name in ("operator", "reason"))
    return FleetPause(operator=operator or "unknown", reason=reason, since=found.update_time)


def _text(value: object) -> str:
    return visible(value)[:MAX_REASON_CHARS] if isinstance(value, str) else ""
