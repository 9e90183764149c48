"""The order in which a person wants to read steps: each right after what it depends on. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def reading_order(depends_on: Mapping[str, Collection[str]]) -> list[str]:
    """All steps by id, but what a step depends on comes before it. Steps in a circle come as they are met."""
    ordered: dict[str, None] = {}
    for root in sorted(depends_on):
        # By hand: a chain of steps may be longer than Python's own stack.
        waiting, entered = [root], set[str]()
        while waiting:
            step_id = waiting[-1]
            ahead = [name for name in depends_on[step_id] if name in depends_on and name not in ordered]
            new = sorted(set(ahead) - entered, reverse=True) if step_id not in entered else []
            entered.add(step_id)
            if new:
                waiting += new
            else:
                waiting.pop()
                ordered.setdefault(step_id)
    return list(ordered)
