"""The daemon that at a signal may start only a few threads more.

The system limits the threads of a user, and never those of root. So root becomes a user that runs nothing
else. Without root the limit counts all threads of the user who runs the tests.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from pathlib import Path

from daemon.__main__ import main

CROWDED = "tests.support.process.crowded_daemon"
#: The variable with the number of threads that it may still start.
MORE_THREADS = "MORE_THREADS"
_LIMIT = signal.SIGUSR1


def limit_threads(pid: int) -> None:
    """Limit the threads of this daemon process from now on."""
    limits = Path(f"/proc/{pid}/limits")
    before = limits.read_text(encoding="ascii")
    os.kill(pid, _LIMIT)
    deadline = time.monotonic() + 10
    while limits.read_text(encoding="ascii") == before:
        if time.monotonic() > deadline:
            raise AssertionError("the daemon did not limit its threads")
        time.sleep(0.01)


def _limit(*_signal: object) -> None:
    found = sum(_threads(process) for process in Path("/proc").glob("[0-9]*"))
    most = found + int(os.environ[MORE_THREADS])
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _threads(process: Path) -> int:
    """Return the number of threads of a process of this user, or 0."""
    try:
        return len(list((process / "task").iterdir())) if process.stat().st_uid == os.getuid() else 0
    except OSError:  # it has ended
        return 0


if __name__ == "__main__":
    if os.getuid() == 0:
        user = 200_000 + os.getpid()
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, 0)
        # It still reads files as root: only root may read a clone in a temporary folder.
        ctypes.CDLL(None).setfsuid(0)
    signal.signal(_LIMIT, _limit)
    main()
