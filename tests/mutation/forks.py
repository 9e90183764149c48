"""A pytest plugin that tries each mutant in a fork of this process, with the collected tests.

A fork costs some milliseconds; a new pytest for each mutant costs a third of a second. The first fork runs
each test with the code as it is, and notes which functions it calls. This process itself runs no test:
it has no threads and no connections that a fork would not survive.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from _pytest.runner import runtestprotocol
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

MAX_SLOWDOWN = 10
MIN_SECONDS = 5
SURVIVED, NO_TESTS, KILLED, TIMEOUT = "survived", "no tests", "killed", "timeout"
WORK, CALLS, RESULTS = Path("work.json"), Path("calls.json"), Path("results.json")


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try the mutants named in `work.json`; write `results.json`."""
    work = json.loads(WORK.read_text())
    if work["call_again"] or not CALLS.exists():
        os.waitpid(_fork(lambda: _note_calls(session)), 0)
    calls = json.loads(CALLS.read_text())
    results: dict[str, list[str]] = {}
    running: dict[int, str] = {}
    chosen = [(name, _tests_of(name, calls, session.items)) for name in work["mutants"]]
    chosen.sort(key=lambda mutant: sum(seconds for seconds, _ in mutant[1]))  # the fastest first
    for number, (name, tests) in enumerate(chosen, start=1):
        if not tests:
            results[name] = [NO_TESTS, ""]
            continue
        running[_fork(lambda: _run(name, tests))] = name  # noqa: B023 - called at once
        if len(running) >= work["processes"]:
            _wait(running, results)
        if not number % 20:
            print(number, len(chosen), flush=True)  # noqa: T201 - a command's output
            RESULTS.write_text(json.dumps(results))
    while running:
        _wait(running, results)
    RESULTS.write_text(json.dumps(results))
    return True


def _note_calls(session: pytest.Session) -> int:
    """Run each test once; write which functions it calls, and the processor time that it takes."""
    set_mutant_under_test("stats")
    functions: dict[str, dict[str, float]] = {}
    failed = []
    for item, following in zip(session.items, [*session.items[1:], None], strict=True):
        state()._stats.clear()
        started = time.process_time()
        reports = runtestprotocol(item, nextitem=following, log=False)
        if any(report.failed for report in reports):
            failed.append(item.nodeid)
            continue
        for function in list(state()._stats):
            functions.setdefault(function, {})[item.nodeid] = time.process_time() - started
    CALLS.write_text(json.dumps({"functions": functions, "failed": failed}))
    print(f"{len(session.items)} tests, left out because they fail here: {failed}", flush=True)  # noqa: T201
    return 0


def _tests_of(
    name: str, calls: dict[str, dict[str, dict[str, float]]], items: list[pytest.Item]
) -> list[tuple[float, pytest.Item]]:
    """Return the tests that call the mutated function, the fastest first."""
    seconds = calls["functions"].get(name.partition("__mutmut_")[0], {})
    return sorted(
        ((seconds[item.nodeid], item) for item in items if item.nodeid in seconds), key=lambda test: test[0]
    )


def _run(name: str, tests: list[tuple[float, pytest.Item]]) -> int:
    """Run the tests with a mutant until one fails; write that one's name.

    What computes for ever ends by the limit, and what waits for ever by pytest's option `--timeout`.
    """
    limit = int(MIN_SECONDS + MAX_SLOWDOWN * sum(seconds for seconds, _ in tests))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    output = os.open(os.devnull, os.O_WRONLY)
    os.dup2(output, sys.__stdout__.fileno())
    os.dup2(output, sys.__stderr__.fileno())
    set_mutant_under_test(name)
    items = [item for _, item in tests]
    items[0].config.pluginmanager.register(EndAtFailure())
    for item, following in zip(items, [*items[1:], None], strict=True):
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


def _wait(running: dict[int, str], results: dict[str, list[str]]) -> None:
    """Wait for the end of one fork."""
    pid, status = os.wait()
    killer = Path(f"killer-{pid}")
    if os.WIFSIGNALED(status):
        results[running.pop(pid)] = [TIMEOUT, signal.Signals(os.WTERMSIG(status)).name]
    elif os.WEXITSTATUS(status):
        results[running.pop(pid)] = [
            KILLED,
            killer.read_text() if killer.exists() else "an error outside the tests",
        ]
    else:
        results[running.pop(pid)] = [SURVIVED, ""]
    killer.unlink(missing_ok=True)
