"""Checks side by side: each has its time, and none hides another."""

from __future__ import annotations

import threading
import time

from daemon.doctor.findings import ok
from daemon.doctor.rounds import Examination, make_all
from worker_chart_export.errors import BackendUnavailable


def test_findings_come_in_the_order_of_the_checks():
    """Whichever ends first."""
    second_done = threading.Event()

    def first():
        assert second_done.wait(10)
        return [ok("a", "1")]

    def second():
        second_done.set()
        return [ok("b", "2"), ok("c", "3")]

    found = make_all([Examination(checks=("a",), make=first), Examination(checks=("b", "c"), make=second)])
    assert [finding.check for finding in found] == ["a", "b", "c"]


def test_one_that_hangs_costs_its_time_and_hides_no_other():
    """Its first check failed; the others of it could not be looked at."""
    released = threading.Event()

    def hang():
        released.wait(30)
        return []

    started = time.monotonic()
    found = make_all(
        [
            Examination(checks=("a", "b"), make=hang),
            Examination(checks=("c",), make=hang),
            Examination(checks=("d",), make=lambda: [ok("d", "fine")]),
        ],
        seconds=0.3,
    )
    released.set()
    assert time.monotonic() - started < 5
    assert [(finding.check, finding.status) for finding in found] == [
        ("a", "failure"),
        ("b", "not_checkable"),
        ("c", "failure"),
        ("d", "ok"),
    ]


def test_an_error_nobody_caught_is_a_failure_and_no_traceback(capfd):
    """Ours in its own words, any other as an internal one."""

    def fail(error):
        raise error

    found = make_all(
        [
            Examination(checks=("a",), make=lambda: fail(BackendUnavailable("storage", "gone"))),
            Examination(checks=("b",), make=lambda: fail(KeyError("odd"))),
        ]
    )
    assert [finding.status for finding in found] == ["failure", "failure"]
    assert found[0].summary == "storage is unavailable: gone"
    assert found[1].summary.startswith("internal: KeyError")
    assert capfd.readouterr() == ("", "")
