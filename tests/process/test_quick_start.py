"""The README's first steps by hand, typed into each shell as they stand there."""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.support.copy_blocks import ROOT, blocks_of
from tests.support.process.terminal import Terminal

SHELLS = {"dash": ["dash", "-i"], "bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}


def typed_blocks():
    """Return the two blocks of the section `Try it by hand`."""
    start = (ROOT / "README.md").read_text("utf-8").partition("\n## Try it by hand")[0].count("\n")
    opening, inside = [block.text for block in blocks_of("README.md") if block.line > start][:2]
    assert "emulators" in opening
    return opening, inside


@pytest.fixture
def installed(tmp_path):
    """Return a folder like a checkout after `make demo`: the command is in `.venv/bin`."""
    command = tmp_path / ".venv/bin/worker-chart-export"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m daemon.cli "$@"\n')
    command.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_the_first_steps_work_as_they_are_typed(shell, installed):
    """The run's charts are made, and `exit` ends the daemon in order, and the emulators."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    opening, inside = typed_blocks()
    environment = {"PYTHONPATH": str(ROOT), "HEALTH_PORT": "0", "PS1": "> ", "TERM": "dumb"}
    with Terminal(environment=environment, program=SHELLS[shell], folder=installed) as terminal:
        terminal.type(opening)
        terminal.wait_for("until this ends: sh")
        terminal.type(inside)
        terminal.wait_for("3 chart steps: 3 SUCCEEDED")
        terminal.type("exit\n")
        terminal.wait_for("Ending 1 program that the command left running")
        terminal.type("echo ended with $?\nexit\n")
        terminal.wait_for("ended with 0")
        terminal.end()
    assert '"event": "daemon_stopped", "exitCode": 0' in (installed / "daemon.log").read_text()
