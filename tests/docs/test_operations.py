"""The quotes in the operators' pages equal the worker's messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daemon.cli.lazy import COMMANDS, load_command
from daemon.exit import ExitCode
from worker_chart_export.errors import ErrorCode
from worker_chart_export.observability.logs import Event

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "daemon").rglob("*.py"))


@pytest.mark.parametrize("message", ["no stream is open", "intake is paused", "not checkable here"])
def test_a_message_that_it_quotes_is_one_of_the_worker(message):
    """A quoted message is a message of the worker, so that an operator can search for it."""
    assert message in PAGE
    assert message in SOURCES


def test_every_error_code_has_a_row():
    """Every error code has a row in the section of failed steps."""
    rows = re.findall(
        r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \|", PAGE.partition("### A step failed")[2], re.MULTILINE
    )
    assert {code for row in rows for code in re.findall(r"[A-Z_]+", row)} == {*ErrorCode}


def test_every_exit_code_has_a_row():
    """Every exit code of the daemon has a row; 1 is only for commands."""
    codes = {code.value for code in ExitCode}
    commands = (ROOT / "docs/getting-started.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    assert {int(code) for code in re.findall(r"^\| (\d) \|", commands, re.MULTILINE)} == codes
    section = PAGE.partition("## 6. ")[2].partition("## 7. ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d) \|", section, re.MULTILINE)} == codes - {1}


def test_every_event_that_it_names_exists():
    """Every event that the page names exists."""
    (sentence,) = re.findall(r"\*\*Log events that deserve attention\*\*: (.+?)\n\n", PAGE, re.DOTALL)
    names = set(re.findall(r"`([a-z_]+)`", sentence))
    assert len(names) == 8
    assert names <= {*Event}


def test_every_command_is_in_getting_started():
    """Every command and sub-command is in getting-started."""
    table = (ROOT / "docs/getting-started.md").read_text(encoding="utf-8").partition("## All commands")[2]
    named = re.findall(r"^\| `([a-z-]+)(?: ([a-z]+))?", table, re.MULTILINE)
    assert {command for command, _ in named} == {*COMMANDS}
    assert {sub for command, sub in named if command == "templates"} == {*load_command("templates").commands}
