"""The command in the test's own process, which saves the second of a process start."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from unittest import mock

from daemon.cli.__main__ import main

PROGRAM = "worker-chart-export"


def run_here(*arguments, environment=None):
    """Run `worker-chart-export` and return its result as that of a process."""
    out, err = io.StringIO(), io.StringIO()
    variables = {"COLUMNS": "160", **(environment or {})}
    with (
        mock.patch.object(sys, "argv", [PROGRAM, *arguments]),
        mock.patch.dict(os.environ, variables),
        redirect_stdout(out),
        redirect_stderr(err),
        _same_signals_after(),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess([PROGRAM, *arguments], int(code), out.getvalue(), err.getvalue())


@contextmanager
def _same_signals_after():
    """Restore the blocked signals, because some commands block stop signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
