"""What the process says when it ends; operators and systemd go by these."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0
    JOB_FAILED = 1
    BAD_SETTINGS = 2  # systemd does not restart
    REFUSED = 3  # subscription missing or forbidden, or a backend refused
    DRAIN_TIMEOUT = 4  # also: a second signal cut the drain short
    INTERNAL_ERROR = 5
