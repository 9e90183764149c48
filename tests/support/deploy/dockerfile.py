"""Read a Dockerfile as its instructions, and `.dockerignore` as Docker does."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction with its continued lines joined.

    Attributes:
        stage: The number of its stage, from 0; -1 before the first FROM.
    """

    stage: int
    keyword: str
    rest: str

    @property
    def arguments(self) -> list[str]:
        """Return the arguments without flags; those of an exec form without its brackets."""
        if self.rest.startswith("["):
            return [str(word) for word in json.loads(self.rest)]
        return [word for word in self.rest.split() if not word.startswith("--")]


def instructions(text: str) -> list[Instruction]:
    """Return the file's instructions in order, without comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: list[Instruction] = []
    stage = -1
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        keyword, _, rest = line.partition(" ")
        stage += keyword == "FROM"
        found.append(Instruction(stage=stage, keyword=keyword, rest=rest.strip()))
    return found


def is_sent(path: str, ignore: Sequence[str]) -> bool:
    """Return whether a file of the build context is sent: the last matching pattern decides.

    A pattern matches a path or any of its parents, from the root; `**` matches any number of folders
    (https://docs.docker.com/build/concepts/context/#dockerignore-files).
    """
    parts = path.split("/")
    parents = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    sent = True
    for line in ignore:
        pattern = _as_regex(line.removeprefix("!"))
        if any(pattern.fullmatch(parent) for parent in parents):
            sent = line.startswith("!")
    return sent


def ignore_patterns(text: str) -> list[str]:
    """Return the patterns of a `.dockerignore`, without comments."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _as_regex(pattern: str) -> re.Pattern[str]:
    signs = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(signs.get(part, re.escape(part)) for part in parts))
