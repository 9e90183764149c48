"""What a checkup of the process finds: how each of its parts is, and whether the whole is well. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

WELL = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """How the process is, at one moment.

    Attributes:
        parts: By the name of the part: `ok`, or what is wrong with it.
        reason: Why the whole is not well; None while it is.
    """

    parts: Mapping[str, str]
    reason: str | None


def readiness(*, is_draining: bool, stream_is_open: bool, backends_away: Collection[str]) -> HealthReport:
    """Whether the daemon takes work: its stream is open, it is not draining, and its intake is not paused."""
    away = f"{', '.join(backends_away)} unavailable"
    parts = {
        "stream": WELL if stream_is_open else "closed",
        "drain": "draining" if is_draining else WELL,
        "intake": f"paused: {away}" if backends_away else WELL,
    }
    if is_draining:
        return HealthReport(parts=parts, reason="draining")
    if not stream_is_open:
        return HealthReport(parts=parts, reason="no stream is open")
    return HealthReport(parts=parts, reason=f"intake is paused: {away}" if backends_away else None)
