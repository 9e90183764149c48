"""Commands to copy: each shell passes the ids on unchanged, and the command reads them as ids."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from daemon.cli.lazy import load_command
from daemon.reports.wording import command_line

#: Ids that the contract allows: a run id may begin with a hyphen, and a step id holds almost anything.
RUN_IDS = ("20251215-102530_IBM_k3f7a", "--help", "-x:1")
STEP_IDS = ("charts:1d:all", 'it\'s $(id) "q" !x & ; | > \\ #', "-s", "--keep-charts", "größe 图", "$HOME~")


@pytest.fixture
def arguments_of(tmp_path):
    """Return a function that runs a line in a shell, and returns the arguments that the command gets."""
    program = tmp_path / "worker-chart-export"
    program.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n", encoding="utf-8")
    program.chmod(0o700)

    def run(shell, line):
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run([shell, "-c", line], env={"PATH": path}, capture_output=True, check=True)
        return done.stdout.decode().removesuffix("\0").split("\0")

    return run


@pytest.mark.parametrize("shell", [name for name in ("sh", "bash", "zsh") if shutil.which(name)])
def test_a_copied_command_names_the_step(arguments_of, shell):
    """The command gets exactly these ids, whatever they contain."""
    for run_id in RUN_IDS:
        for step_id in STEP_IDS:
            name, *arguments = arguments_of(shell, command_line("retry", run_id, step_id))
            with load_command(name).make_context(name, arguments) as parsed:
                given = [parsed.params["run_id"], *parsed.params["step_ids"]]
                assert given == [run_id, step_id]
                assert not parsed.params["keep_charts"]


def test_a_usual_id_needs_no_quotes():
    """A usual command is shown without quotes."""
    assert command_line("status", RUN_IDS[0]) == f"worker-chart-export status {RUN_IDS[0]}"
