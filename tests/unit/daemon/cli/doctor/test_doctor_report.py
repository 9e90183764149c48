"""The output and the exit code of `doctor`."""

from __future__ import annotations

import io
import json
from dataclasses import replace

from rich.console import Console

from daemon.cli.doctor.report import as_json, show
from daemon.cli.doctor.results import DoctorReport, Status, failure, not_checkable, ok, warning
from daemon.exit import ExitCode
from daemon.settings.emulators import Emulators

NO_EMULATORS = Emulators(pubsub=None, firestore=None, storage=None)


def test_the_exit_code_is_the_worst_of_all():
    """The exit code is the worst: bad settings before failures; warnings and skipped checks are 0."""
    fine = [ok("a", "x"), warning("b", "x", "y"), not_checkable("c", "x")]
    bad = [*fine, failure("d", "x")]
    assert DoctorReport(results=tuple(fine), settings_are_good=True).exit_code is ExitCode.OK
    assert DoctorReport(results=tuple(fine), settings_are_good=True).result is Status.WARNING
    assert DoctorReport(results=tuple(bad), settings_are_good=True).exit_code is ExitCode.REFUSED
    assert DoctorReport(results=tuple(bad), settings_are_good=False).exit_code is ExitCode.BAD_SETTINGS
    assert DoctorReport(results=tuple(fine[:1]), settings_are_good=True).result is Status.OK


def test_json_is_one_object_with_all_checks():
    """The JSON output is one object with ids, statuses, summaries, fixes and the overall result."""
    report = DoctorReport(results=(ok("a", "x"), failure("b", "y", "z")), settings_are_good=True)
    assert json.loads(as_json(report, NO_EMULATORS)) == {
        "result": "failure",
        "exitCode": 3,
        "emulators": {},
        "checks": [
            {"id": "a", "status": "ok", "summary": "x", "mend": None},
            {"id": "b", "status": "failure", "summary": "y", "mend": "z"},
        ],
    }


def test_a_terminal_gets_folded_lines_and_whole_commands():
    """At 80 columns text is wrapped and commands are not, so that they can be copied."""
    command = "gcloud pubsub subscriptions update " + "x" * 100 + " --ack-deadline=60"
    results = (ok("a", "words " * 40), warning("b", "short", command), not_checkable("c", "words " * 40))
    emulators = Emulators(pubsub="h:1", firestore=None, storage=None)
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, width=80, color_system=None, highlight=False)
    show(console, DoctorReport(results=results, settings_are_good=True), emulators)
    lines = [line.rstrip() for line in page.getvalue().splitlines()]
    assert f"        fix: {command}" in lines
    assert all(len(line) <= 80 for line in lines if command not in line)
    assert sum(line.startswith("ok ") for line in lines) == 1
    assert lines[-1].startswith("1 ok, 1 warning, 0 failures, 1 not checkable here.")


def test_possible_leftovers_are_named():
    """What may be left over is in the check's line, and a separate value in JSON."""
    found = replace(failure("a", "unavailable", "start it"), left_over="s/1")
    assert str(found) == "unavailable; s/1 may be left over"
    (check,) = json.loads(as_json(DoctorReport(results=(found,), settings_are_good=True), NO_EMULATORS))[
        "checks"
    ]
    assert (check["summary"], check["leftOver"]) == ("unavailable", "s/1")
