"""The command as a separate process."""

from __future__ import annotations

import subprocess
import tempfile
from typing import TYPE_CHECKING

from tests.support.process.daemons import clean_environment
from tests.support.process.fork_server import ForkedProcess

if TYPE_CHECKING:
    from collections.abc import Mapping


def run_command(
    *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `worker-chart-export` in a forked process and return it when it has ended."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = ForkedProcess(
            "daemon.cli",
            arguments,
            environment=clean_environment({"COLUMNS": "160", **(environment or {})}),
            stdout=out.fileno(),
            stderr=err.fileno(),
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), err.read())
