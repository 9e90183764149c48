"""Measure the code: how large files, folders and functions are.

A function's lines are those of its body from first to last, without the docstring. Bodies without lines are
left out. Public is what has no underscore before its name and stands in nothing that has one, and in no
function. A private function has one caller if its name stands in one place only, in a call or handed over.
It is looked for in its class or file and, where it is a file's own, in the files that import it. Its own
body does not count.
"""

from __future__ import annotations

import ast
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SOURCES, TESTS = ("daemon", "worker_chart_export", "localcloud"), "tests"
LONG_FILE_LINES = 400
TINY_LINES = 2

Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A function, a method or a class.

    Attributes:
        path: The file's, below the root.
        module: Its syntax tree.
        outer: The classes and functions that this one stands in, the innermost last.
        lines: Of its body.
    """

    path: str
    module: ast.Module
    outer: tuple[Node, ...]
    node: Node
    lines: int

    @property
    def is_public(self) -> bool:
        """Whether others may use it."""
        in_function = any(not isinstance(node, ast.ClassDef) for node in self.outer)
        return not in_function and not any(node.name.startswith("_") for node in (*self.outer, self.node))

    @property
    def is_private(self) -> bool:
        """Whether it is a function or method `_x`."""
        name = self.node.name
        return not isinstance(self.node, ast.ClassDef) and name.startswith("_") and not name.startswith("__")

    def __str__(self) -> str:
        name = ".".join(node.name for node in (*self.outer, self.node))
        return f"{self.path}:{self.node.lineno}  {name}  {self.lines}"


def definitions(package: str) -> list[Definition]:
    """All functions, methods and classes of a package, in the order of the sources."""
    found = []

    def search(path: str, module: ast.Module, node: ast.AST, outer: tuple[Node, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Node):
                body = child.body[1:] if ast.get_docstring(child) is not None else child.body
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                found.append(Definition(path=path, module=module, outer=outer, node=child, lines=lines))
            search(path, module, child, (*outer, child) if isinstance(child, Node) else outer)

    for path in sorted((ROOT / package).rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        search(path.relative_to(ROOT).as_posix(), module, module, ())
    return found


def names_in(tree: ast.AST) -> Counter[str]:
    """How often each name is used in a piece of source, alone or after a dot."""
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found[node.id] += 1
        elif isinstance(node, ast.Attribute):
            found[node.attr] += 1
    return found


def imports_of(module: ast.Module) -> Counter[str]:
    """How often a file uses each name that it imports from another."""
    used = names_in(module)
    imports = [node for node in ast.walk(module) if isinstance(node, ast.ImportFrom)]
    return Counter({alias.name: used[alias.name] for node in imports for alias in node.names})


def with_one_caller(everything: Sequence[Definition]) -> list[Definition]:
    """The private functions whose name stands in one place only."""
    modules = {id(one.module): one.module for one in everything}.values()
    imported = sum((imports_of(module) for module in modules), Counter[str]())
    scopes = {id(scope): scope for one in everything for scope in (one.outer or (one.module,))[-1:]}
    uses = {key: names_in(scope) for key, scope in scopes.items()}
    found = []
    for one in everything:
        name, scope = one.node.name, (one.outer or (one.module,))[-1]
        if one.is_private:
            elsewhere = 0 if one.outer else imported[name]
            if uses[id(scope)][name] - names_in(one.node)[name] + elsewhere == 1:
                found.append(one)
    return found


def most_entries(folder: Path) -> list[int]:
    """The most files and folders that one folder has, level by level, from this one downwards."""
    most, level = [], [folder]
    while level:
        entries = [
            [entry for entry in parent.iterdir() if not entry.name.startswith((".", "__pycache__"))]
            for parent in level
        ]
        most.append(max(map(len, entries)))
        level = [entry for inside in entries for entry in inside if entry.is_dir()]
    return most


def column(package: str, found: Sequence[Definition], one_callers: Sequence[Definition]) -> dict[str, str]:
    """What the table says of one package."""
    texts = [path.read_text(encoding="utf-8").splitlines() for path in (ROOT / package).rglob("*.py")]
    lines = [one.lines for one in found if not isinstance(one.node, ast.ClassDef) and one.lines]
    public = [ast.get_docstring(one.node) is not None for one in found if one.is_public]
    private = sum(one.is_private for one in found)
    tiny = sum(one.lines <= TINY_LINES for one in one_callers)
    return {
        "files": f"{len(texts)}",
        "lines": f"{sum(map(len, texts))}",
        "lines that are not blank": f"{sum(bool(line.strip()) for text in texts for line in text)}",
        "most entries of a folder, by level": " / ".join(map(str, most_entries(ROOT / package))),
        f"files over {LONG_FILE_LINES} lines": f"{sum(len(text) > LONG_FILE_LINES for text in texts)}",
        "functions": f"{len(lines)}",
        "lines of a function, median": f"{statistics.median(lines):g}",
        "lines of a function, 90th percentile": f"{statistics.quantiles(lines, n=10)[-1]:g}",
        "lines of a function, most": f"{max(lines)}",
        "public ones with a docstring": f"{100 * statistics.mean(public):.1f} %",
        "private functions": f"{private}",
        "of them with one caller": f"{len(one_callers)} ({100 * len(one_callers) / private:.0f} %)",
        f"of those of {TINY_LINES} lines at most": f"{tiny}",
    }


def table() -> str:
    """All figures: a row for each, a column for each package."""
    found = {package: definitions(package) for package in (*SOURCES, TESTS)}
    one_callers = with_one_caller([one for package in found.values() for one in package])
    columns = {}
    for package, inside in found.items():
        own = [one for one in one_callers if one.path.startswith(f"{package}/")]
        columns[package] = column(package, inside, own)
    rows = [["", *columns], *([name, *(of[name] for of in columns.values())] for name in columns[TESTS])]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    written = {package: int(of["lines that are not blank"]) for package, of in columns.items()}
    ratio = written[TESTS] / sum(written[package] for package in SOURCES)
    return "\n".join([*lines, "", f"tests : sources = {ratio:.2f} : 1, in lines that are not blank"])


def one_caller() -> str:
    """The private functions of two lines at most that have one caller: where, name and lines."""
    everything = [one for package in (*SOURCES, TESTS) for one in definitions(package)]
    return "\n".join(str(one) for one in with_one_caller(everything) if one.lines <= TINY_LINES)
