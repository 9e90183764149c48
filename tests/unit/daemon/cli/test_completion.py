"""The completion scripts of `worker-chart-export`; a real bash has a separate test."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from daemon.cli.app import app
from tests.support.process.in_process_commands import PROGRAM


def _completion(protocol, **text):
    environment = {"_WORKER_CHART_EXPORT_COMPLETE": protocol, **text}
    return CliRunner().invoke(app, [], env=environment, prog_name=PROGRAM).output


@pytest.mark.parametrize(
    ("shell", "text"), [("zsh", f"#compdef {PROGRAM}"), ("fish", f"complete --command {PROGRAM}")]
)
def test_the_script_of_a_shell_names_the_program(shell, text):
    """The script of each shell names the program and uses typer's protocol."""
    assert text in _completion(f"source_{shell}")


def test_zsh_and_fish_get_commands_with_their_descriptions():
    """Both zsh and fish get commands and sub-commands with their descriptions."""
    zsh = _completion("complete_zsh", _TYPER_COMPLETE_ARGS=f"{PROGRAM} ")
    assert '"status":"Show a run\'\'s steps, charts and errors."' in zsh
    fish = {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": f"{PROGRAM} templates r"}
    assert _completion("complete_fish", **fish).startswith("render\t")
