"""Mutants of the core: where they are written, which there are, and which of them mypy rejects.

mutmut writes a copy of the repository to `mutants/`, in which each function exists once as it is and once for
each mutant. The variable `MUTANT_UNDER_TEST` selects the one that is called.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutmut.__main__ import create_mutants
from mutmut.mutation import file_mutation
from mutmut.mutation.data import MutantLineSpans, SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.mutators import operator_arg_removal
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, walk_mutatable_files

from tests.mutation import unpinned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER = Path("mutants")
MYPY = ("-m", "mypy", "--output", "json", "--no-warn-unused-ignores")
#: mutmut writes conditions as `x and False`, which mypy calls redundant. Such a mutant must fail a test.
NO_REJECTIONS = ("redundant-expr", "ignore-without-code")


def write(processes: int) -> None:
    """Write the mutants of all files that changed since the last time."""
    set_mutant_under_test("mutant_generation")
    file_mutation.MutationVisitor = unpinned.Visitor
    file_mutation.mutation_operators = [
        (kind, unpinned.pinned_arguments if operator is operator_arg_removal else operator)
        for kind, operator in file_mutation.mutation_operators
    ]
    FOLDER.mkdir(exist_ok=True)
    changed = Path(unpinned.__file__).stat().st_mtime
    for path in FOLDER.rglob("*.py"):  # mutmut copies a file that it does not mutate only once
        if not path.with_name(path.name + ".meta").exists() or path.stat().st_mtime < changed:
            path.unlink()
    copy_src_dir()
    copy_also_copy_files()
    create_mutants(processes)


def all_by_file() -> dict[Path, dict[str, str]]:
    """Return the names of all mutants, each with a hash of its function and of the rules, by the file."""
    rules = zlib.crc32(Path(unpinned.__file__).read_bytes())
    found = {}
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        hashes = {
            f"{module_of(path)}.{name}": f"{known}-{rules:x}"
            for name, known in data.hash_by_function_name.items()
        }
        if data.exit_code_by_key:
            found[path] = {name: hashes.get(function_of(name), "") for name in data.exit_code_by_key}
    return found


def function_of(name: str) -> str:
    """Return the name of the function that a mutant is of."""
    return name.partition("__mutmut_")[0]


def rejected_by_mypy(files: Iterable[Path]) -> dict[Path, list[str]]:
    """Return the names of the mutants that mypy rejects with the settings of `make types`, by the file."""
    modules = [module_of(path) for path in files]
    command = [sys.executable, *MYPY, *(part for module in modules for part in ("-m", module))]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    rejected: dict[Path, list[dict[str, Any]]] = {}
    for line in filter(str.strip, done.stdout.splitlines()):
        error = json.loads(line)
        if error["severity"] == "error" and error["code"] not in NO_REJECTIONS:
            rejected.setdefault(Path(error["file"]), []).append(error)
    return {
        path: [f"{module_of(path)}.{name}" for name in _functions_at(path, rejected.get(path, []))]
        for path in files
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
