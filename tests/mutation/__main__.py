"""Mutation testing of the core: `python -m tests.mutation`, or `make mutants`."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

from tests.mutation import mutants
from tests.mutation.forks import KILLED, NO_TESTS, RESULTS, SURVIVED, TIMEOUT, WORK

SURVIVORS = Path(__file__).with_name("survivors.json")
REJECTED = "mypy"
TYPES = Path("types.json")


def main() -> int:
    """Try the mutants; return 1 if one survives that is not in the list."""
    options = _options()
    if not options.report:
        mutants.write(options.processes)
    files = mutants.names_by_file()
    rejected = _rejected(files)
    results = _read(RESULTS) if options.survivors or options.report else {}
    if not options.report:
        results |= _try(files, rejected, results, options)
    return _report(files, rejected, results, keeps=options.keep)


def _try(
    files: dict[Path, list[str]],
    rejected: set[str],
    earlier: dict[str, list[str]],
    options: argparse.Namespace,
) -> dict[str, list[str]]:
    """Try the chosen mutants; return how each ended, and by which test."""
    chosen = [
        name
        for names in files.values()
        for name in names
        if name not in rejected
        and fnmatch.fnmatch(name, options.only)
        and (not options.survivors or earlier.get(name, [SURVIVED])[0] in {SURVIVED, NO_TESTS})
    ]
    work = {"mutants": chosen, "processes": options.processes, "call_again": options.calls}
    (mutants.FOLDER / WORK).write_text(json.dumps(work))
    (mutants.FOLDER / RESULTS).unlink(missing_ok=True)
    subprocess.run(_pytest(), cwd=mutants.FOLDER, check=True, env=os.environ | {"MUTANT_UNDER_TEST": ""})
    results = _read(RESULTS)
    (mutants.FOLDER / RESULTS).write_text(json.dumps(earlier | results))
    return results


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", default="*", help="a pattern of names, as `*.ledger.lease.*`")
    parser.add_argument("--survivors", action="store_true", help="only those that survived the last time")
    parser.add_argument("--keep", action="store_true", help="write what survives into survivors.json")
    parser.add_argument("--report", action="store_true", help="only print the results of the last time")
    parser.add_argument("--calls", action="store_true", help="find out again which test calls which function")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def _read(name: Path) -> dict[str, list[str]]:
    path = mutants.FOLDER / name
    return json.loads(path.read_text()) if path.exists() else {}


def _rejected(files: dict[Path, list[str]]) -> set[str]:
    """Ask mypy, unless it was asked after the files were written."""
    known = mutants.FOLDER / TYPES
    newest = max((mutants.FOLDER / path).stat().st_mtime for path in files)
    if not known.exists() or known.stat().st_mtime < newest:
        known.write_text(json.dumps(sorted(mutants.rejected_by_mypy(files))))
    return set(json.loads(known.read_text()))


def _pytest() -> list[str]:
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutmut"]
    arguments = settings["pytest_add_cli_args"] + settings["pytest_add_cli_args_test_selection"]
    return [sys.executable, "-m", "pytest", "-p", "tests.mutation.forks", *arguments]


def _report(
    files: dict[Path, list[str]], rejected: set[str], results: dict[str, list[str]], *, keeps: bool
) -> int:
    """Print the score of each folder, and the survivors that are not in the list; with `keeps`, list them.

    The list has the function, the lines before and after, and `why` no test can notice the change: such a
    mutant is equivalent.
    """
    known = {_key(entry): entry.get("why", "") for entry in json.loads(SURVIVORS.read_text())}
    survivors = []
    folders: dict[str, Counter[str]] = {}
    for path, names in files.items():
        for name in names:
            status = REJECTED if name in rejected else results.get(name, ["not tried"])[0]
            if status in {SURVIVED, NO_TESTS}:
                before, after = mutants.change_of(name, path)
                found = {"where": name.partition("__mutmut_")[0], "before": before, "after": after}
                why = known.get(_key(found))
                survivors.append(found | ({"why": why} if why else {}))
                status = "equivalent" if why else status if why is None else "known survivor"
                if why is None:
                    print(f"{status}: {name}\n  - {before}\n  + {after}")  # noqa: T201
            folders.setdefault(str(path.parent), Counter())[status] += 1
    for folder, counts in folders.items():
        killed = counts[REJECTED] + counts[KILLED] + counts[TIMEOUT]
        tried = counts.total() - counts["not tried"]
        print(f"{folder}: {killed} of {tried} killed, {killed / max(1, tried):.1%}", dict(counts))  # noqa: T201
    if keeps:
        SURVIVORS.write_text(json.dumps(sorted(survivors, key=_key), indent=1, ensure_ascii=False) + "\n")
    return int(any(counts[SURVIVED] + counts[NO_TESTS] for counts in folders.values()))


def _key(entry: dict[str, str]) -> tuple[str, str, str]:
    return entry["where"], entry["before"], entry["after"]


if __name__ == "__main__":
    sys.exit(main())
