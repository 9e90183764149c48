"""What can be seen of a topic with the rights that this account has. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """A topic.

    Attributes:
        path: Its full name.
        exists: None = this account may not look.
        subscriptions: How many there are; None = this account may not look, or there is no topic.
        may_publish: None = it can't be asked; emulators don't know permissions.
    """

    path: str
    exists: bool | None
    subscriptions: int | None = None
    may_publish: bool | None = None
