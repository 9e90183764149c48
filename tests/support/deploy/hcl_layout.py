"""The line-by-line part of `terraform fmt`: spaces, indentation, aligned signs.

`terraform fmt` does more. Where Terraform is installed, a test also runs it.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ARGUMENT = re.compile(r"^( *)([A-Za-z_][\w-]*)( *)=( *)[^\s=>]")
HEREDOC = re.compile(r"<<[-~]?(\w+)$")
IN_QUOTES = re.compile(r'"(?:\$\{[^}]*\}|\\.|[^"\\])*"')
COMMENT = re.compile(r"#.*$")
INDENT = 2


def layout_faults(text: str) -> list[str]:
    """Return the layout errors of a file with their line numbers."""
    lines = text.splitlines()
    faults = [f"{number}: space at the end, or a tab" for number, line in _numbered(lines) if _untidy(line)]
    if not text.endswith("\n") or text.endswith("\n\n"):
        faults.append(f"{len(lines)}: not one line end at the end")
    code = list(_without_heredocs(lines))
    return [*faults, *_indentation(code), *_alignment(code)]


def _numbered(lines: list[str]) -> Iterator[tuple[int, str]]:
    return enumerate(lines, start=1)


def _untidy(line: str) -> bool:
    return line != line.rstrip() or "\t" in line


def _without_heredocs(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Return the code without quoted text, comments and the content of heredocs."""
    end = None
    for number, line in _numbered(lines):
        if end is None:
            bare = COMMENT.sub("", IN_QUOTES.sub('""', line)).rstrip()
            found = HEREDOC.search(bare)
            end = found and found[1]
            yield number, bare
        elif line.strip() == end:
            end = None


def _indentation(code: list[tuple[int, str]]) -> Iterator[str]:
    depth = 0
    for number, line in code:
        stripped = line.strip()
        wanted = INDENT * (depth - stripped.startswith((")", "]", "}")))
        if stripped and len(line) - len(line.lstrip()) != wanted:
            yield f"{number}: not indented by {wanted}"
        depth += _opened(line)


def _opened(line: str) -> int:
    """Check that a line with several opening brackets is indented once, as its closing line is."""
    change = sum(line.count(sign) for sign in "([{") - sum(line.count(sign) for sign in ")]}")
    return max(-1, min(1, change))


def _alignment(code: list[tuple[int, str]]) -> Iterator[str]:
    """Check that consecutive one-line arguments have aligned signs."""
    for indent, block in groupby(code, key=lambda numbered: _single_argument(numbered[1])):
        if indent is None:
            continue
        found = [(number, ARGUMENT.match(line)) for number, line in block]
        longest = max(len(match[2]) for _, match in found if match)
        for number, match in found:
            if match and (len(match[2]) + len(match[3]), match[4]) != (longest + 1, " "):
                yield f"{number}: its sign is not aligned"


def _single_argument(line: str) -> int | None:
    """Return the alignment of an argument that ends on its line; None = something else."""
    match = ARGUMENT.match(line)
    return len(match[1]) if match and not _opened(line) and not HEREDOC.search(line) else None
