"""The table of promises in `docs/reliability.md` names rules and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text()
ROW = re.compile(
    r"^\| (?P<promise>[^|]+) \| (?P<explorer>[-0-9, ]+) \| (?P<storm>[-0-9, ]+) \| `(?P<test>[^`]+)` \|$"
)


def section(title: str) -> str:
    """Return the part of the page under this heading."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def numbered(title: str) -> set[str]:
    """Return the numbers of the list under this heading."""
    return set(re.findall(r"^([0-9]+)\. ", section(title), re.MULTILINE))


LINES = [
    line for line in section("What is promised, and where it is proved").splitlines() if line[:1] == "|"
][2:]
RULES = {"explorer": numbered("Every interleaving"), "storm": numbered("What is checked afterwards")}


def test_each_line_is_read():
    """A line in another form would be checked by nothing."""
    assert len(LINES) > 30
    assert [line for line in LINES if not ROW.match(line)] == []


@pytest.mark.parametrize("line", LINES)
def test_its_rules_and_its_test_exist(line):
    """The rules have these numbers, and the file has a test of that name."""
    row = ROW.fullmatch(line)
    for column, numbers in RULES.items():
        assert set(re.findall("[0-9]+", row[column])) <= numbers
    path, _, name = row["test"].partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
