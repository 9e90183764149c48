"""Match names with the glob patterns of the parameter `matchGlob`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from localcloud.storage.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PART = re.compile(r"(?:(?<=/)|^)\*\*/|\*+|\\.|\[[!^]?\]?[^\]]*\]|.", re.DOTALL)
_LONGEST = 1024  # as long as a name
_MOST_KNOWN = 10_000


class Glob:
    """A glob pattern.

    `*` is any text without a slash, `**` any text, `**/` any number of folders, `?` any character but a
    slash, `[ab]` and `[!ab]` one character, `{a,b}` one of the patterns. A backslash takes the next character
    as it is.

    It follows all ways to match at once, so the time for a name grows with its length and that of the
    pattern only. A regular expression tries one way after the other: eight stars can take a minute.

    Args:
        text: The pattern.

    Raises:
        StorageError: 400, it is too long, or a bracket or a brace has no end.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise invalid(f"Invalid glob pattern: it is longer than {_LONGEST} characters.", "matchGlob")
        # The places in the pattern: for each one the steps that take a character, and those that take none.
        self._steps: list[list[tuple[Callable[[str], bool], int]]] = []
        self._skips: list[list[int]] = []
        first = self._place()
        self._end = self._parse(text, first)
        self._first = self._reached([first])
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def matches(self, name: str) -> bool:
        """Return whether the whole name matches."""
        places = self._first
        for character in name:
            following = self._known.get((places, character))
            if following is None:
                following = self._after(places, character)
            if not following:
                return False
            places = following
        return self._end in places

    def _after(self, places: frozenset[int], character: str) -> frozenset[int]:
        following = self._reached(
            to for place in places for takes, to in self._steps[place] if takes(character)
        )
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[places, character] = following
        return following

    def _reached(self, places: Iterable[int]) -> frozenset[int]:
        """Return the places, and those that are reached from them without a character."""
        waiting, reached = list(places), set[int]()
        while waiting:
            place = waiting.pop()
            if place not in reached:
                reached.add(place)
                waiting += self._skips[place]
        return frozenset(reached)

    def _place(self, after: int | None = None, takes: Callable[[str], bool] | None = None) -> int:
        """Add a place, reached from `after` by a character that `takes` accepts; None = without one."""
        self._steps.append([])
        self._skips.append([])
        place = len(self._steps) - 1
        if after is not None and takes is None:
            self._skips[after].append(place)
        elif after is not None and takes is not None:
            self._steps[after].append((takes, place))
        return place

    def _parse(self, text: str, place: int) -> int:
        """Add the places of a pattern after `place`, and return its last one."""
        braces: list[tuple[int, int]] = []  # where each open brace begins and ends
        for part in _PART.findall(text):
            if part == "{":
                braces.append((place, self._place()))
            elif braces and part in (",", "}"):
                self._skips[place].append(braces[-1][1])
                place = braces[-1][0] if part == "," else braces.pop()[1]
            elif part.startswith("*"):
                place = self._add_stars(part, place)
            else:
                place = self._place(place, _one(part))
        if braces:
            raise invalid(f"Invalid glob pattern: '{text}'.", "matchGlob")
        return place

    def _add_stars(self, part: str, before: int) -> int:
        inside = self._place(before)
        self._steps[inside].append((_no_slash if part == "*" else _any, inside))
        if not part.endswith("/"):
            return inside
        after = self._place(inside, _slash)
        self._skips[before].append(after)
        return after


def _any(_character: str) -> bool:
    return True


def _slash(character: str) -> bool:
    return character == "/"


def _no_slash(character: str) -> bool:
    return character != "/"


def _one(part: str) -> Callable[[str], bool]:
    """Return which character a part of a pattern takes."""
    if part == "?":
        return _no_slash
    if part == "[":
        raise invalid("Invalid glob pattern: a bracket has no end.", "matchGlob")
    if len(part) > 1 and part.startswith("["):
        inside = part[1:-1]
        negated = inside[:1] in ("!", "^")
        return _set(inside[negated:], negated=negated)
    return part[-1].__eq__


def _set(inside: str, *, negated: bool) -> Callable[[str], bool]:
    escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside)
    try:
        expression = re.compile(f"[{'^/' if negated else ''}{escaped}]", re.DOTALL)
    except re.error:
        raise invalid(f"Invalid glob pattern: '[{inside}]'.", "matchGlob") from None
    return lambda character: expression.match(character) is not None
