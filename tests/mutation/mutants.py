"""Mutants of the core: where they are written, which there are, and which of them mypy rejects.

mutmut writes a copy of the repository to `mutants/`, in which each function exists once as it is and once for
each mutant. The variable `MUTANT_UNDER_TEST` selects the one that is called.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libcst as cst
from mutmut.__main__ import create_mutants
from mutmut.mutation import file_mutation
from mutmut.mutation.data import MutantLineSpans, SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.mutators import operator_arg_removal, operator_string
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, walk_mutatable_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER = Path("mutants")
MYPY = ("-m", "mypy", "--output", "json", "--no-warn-unused-ignores")
#: mutmut writes conditions as `x and False`, which mypy calls redundant. Such a mutant must fail a test.
NO_REJECTIONS = ("redundant-expr", "ignore-without-code")


def is_text(node: cst.CSTNode) -> bool:
    """Return whether this is a string for people: one with a space. Tests don't repeat such texts."""
    if isinstance(node, cst.SimpleString):
        return " " in node.value
    if isinstance(node, cst.ConcatenatedString):
        return is_text(node.left) or is_text(node.right)
    parts = node.parts if isinstance(node, cst.FormattedString) else ()
    return any(isinstance(part, cst.FormattedStringText) and " " in part.value for part in parts)


def no_texts(node: cst.BaseString) -> Iterable[cst.BaseString]:
    """Mutate a string as mutmut does, unless it is a text."""
    return () if is_text(node) else operator_string(node)


def no_text_arguments(node: cst.Call) -> Iterable[cst.Call]:
    """Drop or replace the arguments of a call as mutmut does, but not texts."""
    for mutant in operator_arg_removal(node):
        pairs = itertools.zip_longest(node.args, mutant.args)
        if not is_text(next(old.value for old, new in pairs if new is not old)):
            yield mutant


OPERATORS = {operator_string: no_texts, operator_arg_removal: no_text_arguments}


def write(processes: int) -> None:
    """Write the mutants of all files that changed since the last time."""
    set_mutant_under_test("mutant_generation")
    file_mutation.mutation_operators = [
        (kind, OPERATORS.get(operator, operator)) for kind, operator in file_mutation.mutation_operators
    ]
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.rglob("*.py"):  # mutmut copies a file that it does not mutate only once
        if not path.with_name(path.name + ".meta").exists():
            path.unlink()
    copy_src_dir()
    copy_also_copy_files()
    create_mutants(processes)


def names_by_file() -> dict[Path, list[str]]:
    """Return the names of all mutants, by the file that they are mutants of."""
    found = {}
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        if data.exit_code_by_key:
            found[path] = list(data.exit_code_by_key)
    return found


def rejected_by_mypy(files: Iterable[Path]) -> set[str]:
    """Return the names of the mutants that mypy rejects with the settings of `make types`."""
    modules = [module_of(path) for path in files]
    command = [sys.executable, *MYPY, *(part for module in modules for part in ("-m", module))]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    rejected: dict[Path, list[dict[str, Any]]] = {}
    for line in filter(str.strip, done.stdout.splitlines()):
        error = json.loads(line)
        if error["severity"] == "error" and error["code"] not in NO_REJECTIONS:
            rejected.setdefault(Path(error["file"]), []).append(error)
    return {
        f"{module_of(path)}.{name}" for path in files for name in _functions_at(path, rejected.get(path, []))
    }


def _functions_at(path: Path, errors: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the mutants with an error that their function as it is has not got."""
    spans = MutantLineSpans.load(path)
    found: dict[str, set[str]] = {}
    for error in errors:
        for name, span in spans.span_by_function_name.items() if spans else ():
            if span.start <= error["line"] <= span.end:
                found.setdefault(name, set()).add(error["message"])
    for name, messages in found.items():
        original = f"{name.partition('__mutmut_')[0]}__mutmut_orig"
        if messages - found.get(original, set()):
            yield name


def module_of(path: Path) -> str:
    """Return the dotted name of a file's module."""
    return ".".join(path.with_suffix("").parts)


def change_of(name: str, path: Path) -> tuple[str, str]:
    """Return the lines that a mutant replaces, and those that it puts there."""
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    before = "\n".join(line[1:].strip() for line in lines if line.startswith("-"))
    after = "\n".join(line[1:].strip() for line in lines if line.startswith("+"))
    return before, after
