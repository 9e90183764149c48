"""The number of cores that this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

#: The limit of a container (control groups, version 2): `<microseconds> <period>` or `max <period>`.
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def available_cores(cpu_limit: Path = _CPU_LIMIT) -> int:
    """Return the number of cores, at least 1: those of the machine, or of the container's limit if fewer.

    Args:
        cpu_limit: The file of the container's limit.
    """
    cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no such limit
        quota, period = cpu_limit.read_text(encoding="ascii").split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)
