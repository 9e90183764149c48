"""What is to become of a message. The handler returns one of these; settlement carries it out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The message is done with."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """Somebody else is to have it at once."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """It is to come back after a while; needs no slot, thread or memory meanwhile."""

    delay_seconds: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """It can't be worked by anybody: quarantine, or the dead-letter policy.

    Attributes:
        reason: A stable code.
        detail: One sentence for a person.
    """

    reason: str
    detail: str


Disposition = Ack | Nack | Defer | Reject
