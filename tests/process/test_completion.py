"""Shell completion of `worker-chart-export`, through real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.daemons import clean_environment

COMMAND = Path(sys.executable).with_name("worker-chart-export")
BASH = "/bin/bash"
COMPLETION = "_WORKER_CHART_EXPORT_COMPLETE"


def _completion(protocol, **words):
    done = subprocess.run(
        [str(COMMAND)],
        env=clean_environment({COMPLETION: protocol, **words}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout


def test_bash_completes_commands_and_options(tmp_path):
    """By the script that is printed for it, in a real bash."""
    script = tmp_path / "completion.bash"
    script.write_text(_completion("source_bash"))
    call = '_worker_chart_export_completion "$0"; printf "%s\\n" "${COMPREPLY[@]}"'
    for words, place, expected in (("st", 1, ["status"]), ("status --wa", 2, ["--watch"])):
        typed = f'COMP_WORDS=("$0" {words}); COMP_CWORD={place}'
        done = subprocess.run(
            [BASH, "-c", f"source {script}; {typed}; {call}", str(COMMAND)],
            env=clean_environment({}),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert done.stdout.split() == expected


def test_zsh_and_fish_are_given_commands_with_what_they_do():
    """By typer's protocol for each; their scripts name the program."""
    assert "#compdef worker-chart-export" in _completion("source_zsh")
    assert "complete --command worker-chart-export" in _completion("source_fish")
    zsh = _completion("complete_zsh", _TYPER_COMPLETE_ARGS="worker-chart-export ")
    assert '"status":"Show a run\'\'s steps, charts and errors."' in zsh
    typed = "worker-chart-export templates r"
    fish = {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": typed}
    assert _completion("complete_fish", **fish).startswith("render\t")


def test_show_completion_prints_the_script_of_the_shell_it_is_called_from():
    """To be looked at before it is installed."""
    done = subprocess.run(
        [BASH, "-c", '"$0" --show-completion; exit $?', str(COMMAND)],
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "complete -o default -F _worker_chart_export_completion worker-chart-export" in done.stdout
