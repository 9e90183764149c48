"""Checks run in parallel, each with its own time limit."""

from __future__ import annotations

import threading
import time

from daemon.cli.doctor.results import ok
from daemon.cli.doctor.runner import Check, run_all
from tests.support.fakes import scope_of
from worker_chart_export.errors import BackendUnavailable, Interrupted


def test_findings_come_in_the_order_of_the_checks():
    """Results have the order of the checks, whichever check ends first."""
    second_done = threading.Event()

    def first():
        assert second_done.wait(10)
        return [ok("a", "1")]

    def second():
        second_done.set()
        return [ok("b", "2"), ok("c", "3")]

    checks = [Check(ids=("a",), run=first), Check(ids=("b", "c"), run=second)]
    found = run_all(checks, scope_of())
    assert [result.check for result in found] == ["a", "b", "c"]


def test_one_that_hangs_costs_its_time_and_hides_no_other():
    """A hanging check costs its own time; its later checks are skipped, and other groups complete."""
    released = threading.Event()

    def hang():
        released.wait(30)
        return []

    started = time.monotonic()
    found = run_all(
        [
            Check(ids=("a", "b"), run=hang, fix="open the gate", leaves="s/1"),
            Check(ids=("c",), run=hang),
            Check(ids=("d",), run=lambda: [ok("d", "fine")]),
        ],
        scope_of(),
        seconds=0.3,
    )
    released.set()
    assert time.monotonic() - started < 5
    assert [(result.check, result.status) for result in found] == [
        ("a", "failure"),
        ("b", "not_checkable"),
        ("c", "failure"),
        ("d", "ok"),
    ]
    assert (found[0].fix, found[0].left_over) == ("open the gate", "s/1")
    assert [result.left_over for result in found[1:]] == ["", "", ""]


def test_a_stop_waits_only_for_checks_that_must_delete():
    """A stop waits only for checks that must delete something, and starts no other."""
    run, deleting, never = scope_of(), threading.Event(), threading.Event()
    begun = []

    def read_only():
        never.wait(30)
        return [ok("a", "seen")]

    def write_and_delete():
        run.stop(Interrupted("enough"))
        assert not deleting.wait(0.2)
        return [ok("b", "deleted")]

    started = time.monotonic()
    reading = Check(ids=("a",), run=read_only)
    writing = Check(ids=("b",), run=write_and_delete, leaves="s/1")
    a, b = run_all([reading, writing], run)
    late = run_all([Check(ids=("c",), run=lambda: begun.append(1))], run)
    never.set()
    assert time.monotonic() - started < 5
    assert (a.status, b.summary) == ("failure", "deleted")
    assert (late[0].summary, begun) == ("enough", [])


def test_an_uncaught_error_is_a_failure_and_no_traceback(capfd):
    """An uncaught error is a failure without a traceback; a foreign one is an internal error."""

    def fail(error):
        raise error

    found = run_all(
        [
            Check(ids=("a",), run=lambda: fail(BackendUnavailable("storage", "gone"))),
            Check(ids=("b",), run=lambda: fail(KeyError("odd"))),
        ],
        scope_of(),
    )
    assert [result.status for result in found] == ["failure", "failure"]
    assert found[0].summary == "storage is unavailable: gone"
    assert found[1].summary.startswith("internal: KeyError")
    assert capfd.readouterr() == ("", "")
