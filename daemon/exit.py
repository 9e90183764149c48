"""The end of the process: exit codes, and exits that no hanging thread can delay."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0
    JOB_FAILED = 1
    BAD_SETTINGS = 2  # systemd does not restart
    REFUSED = 3  # subscription missing or forbidden, or a backend refused
    DRAIN_TIMEOUT = 4  # also: a second signal ended the drain early
    INTERNAL_ERROR = 5


def exit_now(code: int) -> None:
    """End the process now. A normal exit would wait for the executor's threads, which may hang."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # the reader of the pipe has ended
            stream.flush()
    os._exit(code)
