"""Shell completion of `worker-chart-export` in a real bash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.process.daemons import clean_environment

COMMAND = Path(sys.executable).with_name("worker-chart-export")
BASH = "/bin/bash"
COMPLETION = "_WORKER_CHART_EXPORT_COMPLETE"


def _bash(script):
    """Return the output of a bash whose `$0` is the command."""
    done = subprocess.run(
        [BASH, "-c", script, str(COMMAND)],
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def test_bash_completes_commands_and_options():
    """The printed script completes commands and options in bash."""
    script = f'source <({COMPLETION}=source_bash "$0")\n'
    for message, place in (("st", 1), ("status --wa", 2)):
        script += f'COMP_WORDS=("$0" {message}); COMP_CWORD={place}; _worker_chart_export_completion "$0"\n'
        script += 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    assert _bash(script).split() == ["stage", "status", "steps", "--watch"]


def test_show_completion_prints_the_script_of_the_shell_it_is_called_from():
    """`--show-completion` prints the script of the calling shell."""
    shown = _bash('"$0" --show-completion; exit $?')
    assert "complete -o default -F _worker_chart_export_completion worker-chart-export" in shown
