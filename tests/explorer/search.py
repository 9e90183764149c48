"""Search all states breadth first. Check the invariants, and that each state leads to the end of all work."""

from __future__ import annotations

import time
from array import array
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.explorer.state import canonical
from tests.explorer.store import Violation, check_state, is_settled, left_over

if TYPE_CHECKING:
    from tests.explorer.move import Move
    from tests.explorer.outside import Moves
    from tests.explorer.state import State

NEVER_ENDS = "from here the work never ends, though nothing disturbs it any more"


@dataclass(slots=True, kw_only=True)
class Found:
    """What a search has found.

    Attributes:
        states: How many states were seen.
        transitions: How many moves led from one to another.
        depth: The most moves that a state needs.
        settled: How many states have nothing left to do.
        seconds: Processor time of the search.
        violation: What is wrong in the first bad state, if there is one.
        history: The shortest way to it.
        is_complete: Every state was seen.
        events: What happened in any history.
    """

    states: int = 0
    transitions: int = 0
    depth: int = 0
    settled: int = 0
    seconds: float = 0.0
    violation: str | None = None
    history: list[str] = field(default_factory=list)
    is_complete: bool = True
    events: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        figures = f"{self.states:,} states, {self.transitions:,} transitions, depth {self.depth}"
        figures += f", {self.seconds:.0f} s"
        if not self.is_complete:
            figures += ", not complete"
        lines = "".join(f"\n  {line}" for line in self.history)
        return f"{figures}; violations {0 if self.violation is None else f'1: {self.violation}{lines}'}"


class Search:
    """A search from one first state.

    Args:
        moves: The moves.
        first: The first state.
        max_seconds: Stop after so much processor time.
        may_pay_late: Workers whose clock stands still may pay after their lease has ended.
    """

    def __init__(
        self, moves: Moves, first: State, *, max_seconds: float = 600.0, may_pay_late: bool = False
    ) -> None:
        self._moves = moves
        self._alike = range(len(first.workers) - len(moves.slow))
        self._max_seconds = max_seconds
        self._may_pay_late = may_pay_late
        self._numbers: dict[State, int] = {canonical(first, self._alike)[0]: 0}
        self._parents = array("l", [-1])
        self._depths = array("H", [0])
        # The moves that are no disturbance, from and to: the search for dead ends goes back along them.
        self._from, self._to = array("l"), array("l")
        self._settled: list[int] = []

    def run(self) -> Found:
        """Search, and return the figures and the first violation."""
        started, found = time.process_time(), Found()
        waiting = deque(enumerate(self._numbers))
        try:
            while waiting:
                number, state = waiting.popleft()
                if time.process_time() - started > self._max_seconds:
                    found.is_complete = False
                    break
                self._visit(number, state, waiting, found)
            if found.is_complete:
                self._find_dead_end()
        except _Stop as stop:
            found.violation, found.history = self._told(stop)
        found.states, found.settled = len(self._numbers), len(self._settled)
        found.depth = max(self._depths)
        found.seconds = time.process_time() - started
        return found

    def _visit(self, number: int, state: State, waiting: deque[tuple[int, State]], found: Found) -> None:
        if is_settled(state):
            self._settled.append(number)
        try:
            for move in self._moves.of(state):
                after, _ = canonical(move.state, self._alike)
                known = self._numbers.get(after)
                if known is None:
                    self._check(move.state)
                    known = self._numbers[after] = len(self._parents)
                    self._parents.append(number)
                    self._depths.append(self._depths[number] + 1)
                    waiting.append((known, after))
                found.transitions += 1
                found.events.add(move.event)
                if not move.is_fault:
                    self._from.append(number)
                    self._to.append(known)
        except Violation as violation:
            raise _Stop(number, violation) from violation

    def _find_dead_end(self) -> None:
        """Find a state from which no way without a disturbance leads to the end of all work."""
        starts, before = self._moves_back()
        is_good = bytearray(len(self._numbers))
        waiting = list(self._settled)
        for number in waiting:
            is_good[number] = 1
        while waiting:
            number = waiting.pop()
            for origin in before[starts[number] : starts[number + 1]]:
                if not is_good[origin]:
                    is_good[origin] = 1
                    waiting.append(origin)
        dead_end = is_good.find(0)
        if dead_end >= 0:
            raise _Stop(dead_end, None)

    def _moves_back(self) -> tuple[array[int], array[int]]:
        """Return where each state's part of the second array begins, and from where moves lead to it."""
        starts = array("l", [0]) * (len(self._numbers) + 1)
        for to in self._to:
            starts[to + 1] += 1
        for number in range(len(self._numbers)):
            starts[number + 1] += starts[number]
        places, before = array("l", starts), array("l", [0]) * len(self._to)
        for origin, to in zip(self._from, self._to, strict=True):
            before[places[to]] = origin
            places[to] += 1
        return starts, before

    def _told(self, stop: _Stop) -> tuple[str, list[str]]:
        """Return what is wrong, and the moves that lead there. The workers keep their numbers."""
        chain = [stop.number]
        while self._parents[chain[-1]] >= 0:
            chain.append(self._parents[chain[-1]])
        wanted = set(chain)
        by_number = {known: state for state, known in self._numbers.items() if known in wanted}
        states = [by_number[known] for known in reversed(chain)]
        names, lines = tuple(range(len(states[0].workers))), []
        for before, after in pairwise(states):
            move, order = self._move_to(before, after)
            lines.append(_line(move, names))
            names = tuple(names[old] for old in order)
        if stop.violation is None:
            return NEVER_ENDS, [*lines, f"left: {left_over(states[-1])}"]
        return stop.violation.said(names), [*lines, *self._last_line(states[-1], names)]

    def _move_to(self, before: State, after: State) -> tuple[Move, tuple[int, ...]]:
        for move in self._moves.of(before):
            state, order = canonical(move.state, self._alike)
            if state == after:
                return move, order
        raise AssertionError("unreachable: each state has a move that led to it")

    def _last_line(self, state: State, names: tuple[int, ...]) -> list[str]:
        """Return the line of the move that leads to the violation. None could be made if it was forbidden."""
        with suppress(Violation):
            for move in self._moves.of(state):
                try:
                    self._check(move.state)
                except Violation:
                    return [_line(move, names)]
        return []

    def _check(self, state: State) -> None:
        check_state(
            state, self._moves.core, wrong_clocks=self._moves.slow if self._may_pay_late else frozenset()
        )


class _Stop(Exception):
    """The search ends at this state, with a violation or because the work never ends there."""

    def __init__(self, number: int, violation: Violation | None) -> None:
        super().__init__(number)
        self.number, self.violation = number, violation


def _line(move: Move, names: tuple[int, ...]) -> str:
    who = f"worker {names[move.who] + 1}" if move.who >= 0 else "outside "
    return f"{who}  {move.event}{f': {move.detail}' if move.detail else ''}"
