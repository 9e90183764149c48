"""The end of the process: its exit codes, and exits that no hung thread can delay."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0
    JOB_FAILED = 1
    BAD_SETTINGS = 2  # systemd does not restart
    REFUSED = 3  # subscription missing or forbidden, or a backend refused
    DRAIN_TIMEOUT = 4  # also: a second signal cut the drain short
    INTERNAL_ERROR = 5


def exit_now(code: int) -> None:
    """End the process now: an executor's hung thread would hold a normal exit for ever."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # whoever read it is gone
            stream.flush()
    os._exit(code)


def arm_exit_timer(deadline: float) -> None:
    """End the process then, whatever hangs: a thread, a lock, a pipe that nobody reads."""
    left_seconds = max(0.0, deadline - time.monotonic())
    timer = threading.Timer(left_seconds, os._exit, (ExitCode.DRAIN_TIMEOUT,))
    timer.daemon = True
    timer.start()
