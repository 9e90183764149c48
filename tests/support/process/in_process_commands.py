"""The person's command in the test's own process: all of it but the start, which takes a second."""

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
    """Run `worker-chart-export`; what it left is told as of a process."""
    out, err = io.StringIO(), io.StringIO()
    told = {"COLUMNS": "160", **(environment or {})}
    with (
        mock.patch.object(sys, "argv", [PROGRAM, *arguments]),
        mock.patch.dict(os.environ, told),
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
    """Some commands block stop signals for as long as they run."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
