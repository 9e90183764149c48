"""A pytest plugin that tries each mutant in a fork of this process, with the collected tests.

A fork costs some milliseconds; a new pytest for each mutant costs a third of a second. The first fork runs
each new or changed test with the code as it is, and notes which functions it calls. This process itself runs
no test: it has no threads and no connections that a fork would not survive.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
import zlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _pytest.runner import runtestprotocol
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

from tests.mutation.mutants import function_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

#: A test may take this much longer with a mutant than without.
MAX_SLOWDOWN, MIN_SECONDS = 10, 10
SURVIVED, NO_TESTS, KILLED, TIMEOUT = "survived", "no tests", "killed", "timeout"
WORK, CALLS, RESULTS = Path("work.json"), Path("calls.json"), Path("results.json")

Tests = list[tuple[float, "pytest.Item"]]


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try the mutants named in `work.json`; write `results.json`."""
    work = json.loads(WORK.read_text())
    calls = _calls(session, again=work["call_again"])
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in work["mutants"]:
        results.pop(name, None)
    killers: dict[str, Counter[str]] = defaultdict(Counter)
    running: dict[int, str] = {}
    chosen = [(name, _tests_of(name, calls, session.items)) for name in work["mutants"]]
    chosen.sort(key=lambda mutant: sum(seconds for seconds, _ in mutant[1]))  # the fastest first
    gc.collect()
    gc.freeze()  # otherwise each fork copies the memory that its garbage collector looks at
    for number, (name, tests) in enumerate(chosen, start=1):
        if not tests:
            results[name] = [NO_TESTS, "", work["mutants"][name]]
            continue
        while len(running) >= work["processes"]:
            _wait(running, results, killers, work["mutants"])
        order = _killers_first(tests, killers[function_of(name)])
        running[_fork(lambda: _run(name, order))] = name  # noqa: B023 - called at once
        if not number % 20:
            print(number, len(chosen), flush=True)  # noqa: T201 - a command's output
            RESULTS.write_text(json.dumps(results))
    while running:
        _wait(running, results, killers, work["mutants"])
    RESULTS.write_text(json.dumps(results))
    return True


def _calls(session: pytest.Session, *, again: bool) -> dict[str, Any]:
    """Return which tests call which functions, and how long each takes. Run those that are not known."""
    if again or not CALLS.exists():
        CALLS.write_text(json.dumps({"functions": {}, "tests": {}}))
    known = json.loads(CALLS.read_text())["tests"]
    new = [item for item in session.items if known.get(item.nodeid) != _version(item)]
    if new:
        os.waitpid(_fork(lambda: _note_calls(new)), 0)
    calls: dict[str, Any] = json.loads(CALLS.read_text())
    return calls


def _version(item: pytest.Item) -> int:
    return zlib.crc32(item.path.read_bytes())


def _note_calls(items: list[pytest.Item]) -> int:
    """Run each test once; write which functions it calls, and how long it takes."""
    set_mutant_under_test("stats")
    calls = json.loads(CALLS.read_text())
    functions: dict[str, dict[str, float]] = calls["functions"]
    failed = []
    for item, following in zip(items, [*items[1:], None], strict=True):
        calls["tests"][item.nodeid] = _version(item)
        for seconds_by_test in functions.values():
            seconds_by_test.pop(item.nodeid, None)
        state()._stats.clear()
        started = time.monotonic()
        reports = runtestprotocol(item, nextitem=following, log=False)
        if any(report.failed for report in reports):
            failed.append(item.nodeid)
            continue
        for function in list(state()._stats):
            functions.setdefault(function, {})[item.nodeid] = time.monotonic() - started
    CALLS.write_text(json.dumps(calls))
    print(f"{len(items)} tests, left out because they fail here: {failed}", flush=True)  # noqa: T201
    return 0


def _tests_of(name: str, calls: dict[str, Any], items: list[pytest.Item]) -> Tests:
    """Return the tests that call the mutated function, the fastest first."""
    seconds = calls["functions"].get(function_of(name), {})
    return sorted(
        ((seconds[item.nodeid], item) for item in items if item.nodeid in seconds), key=lambda test: test[0]
    )


def _killers_first(tests: Tests, killers: Counter[str]) -> Tests:
    """Put the tests that killed other mutants of the same function before the rest."""
    return sorted(tests, key=lambda test: -killers[test[1].nodeid])


def _run(name: str, tests: Tests) -> int:
    """Run the tests with a mutant until one fails; write that one's name.

    A limit ends what waits for ever, and another one what computes for ever.
    """
    limit = int(MIN_SECONDS + MAX_SLOWDOWN * sum(seconds for seconds, _ in tests))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    output = os.open(os.devnull, os.O_WRONLY)
    os.dup2(output, sys.__stdout__.fileno())
    os.dup2(output, sys.__stderr__.fileno())
    set_mutant_under_test(name)
    items = [item for _, item in tests]
    items[0].config.pluginmanager.register(EndAtFailure())
    for (seconds, item), following in zip(tests, [*items[1:], None], strict=True):
        signal.setitimer(signal.ITIMER_REAL, MIN_SECONDS + MAX_SLOWDOWN * seconds)  # SIGALRM ends the fork
        runtestprotocol(item, nextitem=following)
    return 0


class EndAtFailure:
    """Ends the fork when a test fails, without the teardown, which might wait for what a mutant left."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the name of the test that failed."""
        if report.failed:
            Path(f"killer-{os.getpid()}").write_text(report.nodeid)
            os._exit(1)


def _fork(work: Callable[[], int]) -> int:
    """Run `work` in a fork, which exits with what it returns."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = work()
    except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
        traceback.print_exc()
    os._exit(code)


def _wait(
    running: dict[int, str],
    results: dict[str, list[str]],
    killers: dict[str, Counter[str]],
    hashes: dict[str, str],
) -> None:
    """Wait for the end of one fork; note how its mutant ended."""
    pid, status = os.wait()
    name, file = running.pop(pid), Path(f"killer-{pid}")
    if os.WIFSIGNALED(status):
        ended = [TIMEOUT, signal.Signals(os.WTERMSIG(status)).name]
    elif os.WEXITSTATUS(status):
        killer = file.read_text() if file.exists() else "an error outside the tests"
        killers[function_of(name)][killer] += 1
        ended = [KILLED, killer]
    else:
        ended = [SURVIVED, ""]
    results[name] = [*ended, hashes[name]]
    file.unlink(missing_ok=True)
