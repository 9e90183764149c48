"""The person's command as a real process."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.process.daemons import ROOT, clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping


def run_command(
    *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `worker-chart-export` and return the finished process."""
    return subprocess.run(
        [sys.executable, "-m", "daemon.cli", *arguments],
        env=clean_environment({"COLUMNS": "160", **(environment or {})}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
