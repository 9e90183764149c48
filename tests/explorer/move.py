"""One move of a history, and what several moves have in common."""

from __future__ import annotations

from typing import NamedTuple

from tests.explorer.state import DEAD, State, Worker, at


class Move(NamedTuple):
    """One step of a history.

    Attributes:
        who: The worker; -1: someone outside.
        event: The log event that it leads to, or what happens.
        detail: More about it.
        state: The state after it.
        is_fault: It is a disturbance, of which only some may happen.
    """

    who: int
    event: str
    detail: str
    state: State
    is_fault: bool = False


def settled(state: State, index: int, what: str) -> State:
    """Return the state after a message was acked, rejected, nacked or deferred."""
    if index < 0:
        return state
    message = state.messages[index]
    if message.settled:
        return state
    if what in ("ack", "reject"):
        message = message._replace(settled=True, queued=False, deferred=False)
    elif what == "nack":
        message = message._replace(queued=True)
    elif not message.queued:
        message = message._replace(deferred=True)
    return state._replace(messages=at(state.messages, index, message))


def forget(state: State, number: int) -> State:
    """Return the state in which nothing belongs to this worker's last claim any more."""
    return state._replace(
        steps=tuple(step._replace(mark=DEAD) if step.mark == number else step for step in state.steps),
        leases=tuple(
            lease and (lease._replace(owner=DEAD) if lease.owner == number else lease)
            for lease in state.leases
        ),
        manifests=tuple(DEAD if writer == number else writer for writer in state.manifests),
        flights=tuple(flight.of({number: DEAD}) for flight in state.flights),
    )


def killed(state: State, number: int) -> State:
    """Return the state after the process was killed and started again."""
    index = state.workers[number].message
    state = forget(state, number)._replace(workers=at(state.workers, number, Worker()))
    return settled(state, index, "nack")
