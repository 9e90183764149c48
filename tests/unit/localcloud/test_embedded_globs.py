"""The matcher of `matchGlob` against a simple reference, and with patterns made to keep it busy."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from localcloud.storage.errors import StorageError
from localcloud.storage.globs import Glob

PARTS = ["a", "b", "/", "*", "**", "**/", "?", "[ab]", "[!a]", "{a,/b}", "{*/,b,}", "\\*"]
ONE = {"?": "ab*", "[ab]": "ab", "[!a]": "b*", "\\*": "*"}


def variants(parts):
    """Return the patterns without braces that parts stand for."""
    choices = [part[1:-1].split(",") if part.startswith("{") else [part] for part in parts]
    return itertools.product(*choices)


def matches(parts, name):
    """Return whether a name matches: the definition of each part, tried in every way."""
    if not parts:
        return not name
    part, rest = parts[0], parts[1:]
    if part in ("*/", "/b", ""):
        return matches([*part, *rest], name)
    if part in ("**", "*"):
        longest = len(name) if part == "**" else len(name.split("/")[0])
        return any(matches(rest, name[taken:]) for taken in range(longest + 1))
    if part == "**/":
        folders = [place + 1 for place, character in enumerate(name) if character == "/"]
        return any(matches(rest, name[taken:]) for taken in [0, *folders])
    return name != "" and name[0] in ONE.get(part, part) and matches(rest, name[1:])


def random_parts(pick):
    """Return parts in which `**/` is at the beginning of a folder's name, and no stars meet."""
    parts = []
    for part in pick.choices(PARTS, k=pick.randint(1, 5)):
        before = parts[-1] if parts else "/"
        meets = (part.startswith("*") and before.endswith("*")) or before + part == "**/"
        if not meets and (part != "**/" or before in ("/", "**/")):
            parts.append(part)
    return parts


def test_globs_match_what_a_simple_reference_does():
    """Random patterns match the same random names."""
    pick, found = random.Random(1), set()  # noqa: S311 - no secret
    for _ in range(1000):
        parts = random_parts(pick)
        glob = Glob("".join(parts))
        for _ in range(8):
            name = "".join(pick.choices("ab/*", k=pick.randint(0, 6)))
            wanted = any(matches(list(one), name) for one in variants(parts))
            assert glob.matches(name) == wanted, ("".join(parts), name)
            found.add(wanted)
    assert found == {True, False}


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 30 + "b", "**a*" * 200 + "b", "{a,b}" * 200, "{" * 200 + "a" + ",a}" * 200, "**/" * 300 + "b"],
    ids=["stars", "double stars", "braces", "nested braces", "folders"],
)
def test_hostile_globs_are_quick(pattern):
    """The time for a name grows with its length and that of the pattern, whatever the pattern is."""
    began = time.process_time()
    assert not Glob(pattern).matches("a" * 1000)
    assert time.process_time() - began < 2


def test_a_glob_is_as_long_as_a_name_at_most():
    """A pattern longer than any name is refused."""
    with pytest.raises(StorageError, match="longer than 1024"):
        Glob("a" * 1025)
