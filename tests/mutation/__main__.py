"""Mutation testing of the core: `python -m tests.mutation`, or `make mutants`."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.mutation import mutants, report
from tests.mutation.forks import KILLED, RESULTS, TIMEOUT, WORK

TYPES = Path("types.json")


def main() -> int:
    """Try the mutants; return 1 if one survives that has no reason in `survivors/`."""
    options = _options()
    if not options.report:
        mutants.write(options.processes)
    files = {
        path: names
        for path, names in mutants.all_by_file().items()
        if any(fnmatch.fnmatch(name, options.only) for name in names)
    }
    rejected = _rejected(files)
    results = _results(files, options.merge)
    if not options.report:
        results |= _try(files, rejected, results, options)
    return report.write(files, rejected, results, keeps=options.keep)


def _try(
    files: dict[Path, dict[str, str]],
    rejected: set[str],
    earlier: dict[str, list[str]],
    options: argparse.Namespace,
) -> dict[str, list[str]]:
    """Try the chosen mutants; return how each ended, by which test, and the hash of its function."""
    chosen = {
        name: known
        for names in files.values()
        for name, known in names.items()
        if name not in rejected
        and fnmatch.fnmatch(name, options.only)
        and not (options.rest and earlier.get(name, [""])[0] in {KILLED, TIMEOUT})
    }
    work = {"mutants": chosen, "processes": options.processes, "call_again": options.calls}
    (mutants.FOLDER / WORK).write_text(json.dumps(work))
    environment = os.environ | {"MUTANT_UNDER_TEST": ""}
    subprocess.run(_pytest(options.tests), cwd=mutants.FOLDER, check=True, env=environment)
    return {name: result for name, result in _read(mutants.FOLDER / RESULTS).items() if name in chosen}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", default="*", help="a pattern of names, as `*.ledger.lease.*`")
    parser.add_argument("--rest", action="store_true", help="only those that no test has killed yet")
    parser.add_argument(
        "--keep", action="store_true", help="write what survives into survivors/; fill in `why`"
    )
    parser.add_argument("--tests", nargs="+", default=[], help="only with these, as a first sieve")
    parser.add_argument("--report", action="store_true", help="only print the results until now")
    parser.add_argument(
        "--merge", type=Path, action="append", default=[], help="another results.json to report"
    )
    parser.add_argument("--calls", action="store_true", help="find out again which test calls which function")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def _read(path: Path) -> dict[str, list[str]]:
    return json.loads(path.read_text()) if path.exists() else {}


def _results(files: dict[Path, dict[str, str]], others: list[Path]) -> dict[str, list[str]]:
    """Return the results of functions that have not changed since."""
    hashes = {name: known for names in files.values() for name, known in names.items()}
    found = {}
    for path in [*others, mutants.FOLDER / RESULTS]:
        found |= {name: result for name, result in _read(path).items() if hashes.get(name) == result[2]}
    return found


def _rejected(files: dict[Path, dict[str, str]]) -> set[str]:
    """Ask mypy about the files that it has not seen as they are."""
    known = _read(mutants.FOLDER / TYPES)
    times = {path: str((mutants.FOLDER / path).stat().st_mtime_ns) for path in files}
    new = [path for path in files if known.get(str(path), [""])[0] != times[path]]
    if new:
        for path, names in mutants.rejected_by_mypy(new).items():
            known[str(path)] = [times[path], *names]
        (mutants.FOLDER / TYPES).write_text(json.dumps(known))
    return {name for path in files for name in known[str(path)][1:]}


def _pytest(tests: list[str]) -> list[str]:
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutmut"]
    tests = tests or settings["pytest_add_cli_args_test_selection"]
    return [
        *(sys.executable, "-m", "pytest", "-p", "tests.mutation.forks"),
        *(*settings["pytest_add_cli_args"], *tests),
    ]


if __name__ == "__main__":
    sys.exit(main())
