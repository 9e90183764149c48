"""The renderer processes of a daemon, as the system lists them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


#: The field of minor page faults, counted from the state.
_MINOR_FAULTS = 7
_TIMES = slice(11, 13)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):  # it has just ended
            found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def servers_of(pid: int) -> list[int]:
    """Return the processes that start renderers for the process `pid`."""
    return [child for child in _children(pid) if _name(child) == "chart-renderers"]


def renderers_of(pid: int) -> list[int]:
    """Return the renderer processes of the process `pid`."""
    children = [child for server in servers_of(pid) for child in _children(server)]
    return [child for child in children if _name(child) == "chart-renderer"]


def is_running(pid: int) -> bool:
    """Return whether the process runs: a zombie does not."""
    return _state(pid) not in ("", "Z", "X")


def is_stopped(pid: int) -> bool:
    """Return whether the process is stopped by SIGSTOP."""
    return _state(pid) == "T"


def wait_until(holds: Callable[[], object], what: str, timeout_seconds: float = 20.0) -> None:
    """Wait until `holds` returns something true."""
    deadline = time.monotonic() + timeout_seconds
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {timeout_seconds:g} s"
        time.sleep(0.005)


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def page_faults(pid: int) -> int:
    """Return how many pages of memory the process got from the system."""
    return int(_fields(pid)[_MINOR_FAULTS])


def processor_ticks(pid: int) -> int:
    """Return the processor time of a process so far, in clock ticks."""
    return sum(map(int, _fields(pid)[_TIMES]))


def _state(pid: int) -> str:
    with suppress(OSError):
        return _fields(pid)[0]
    return ""


def _fields(pid: int) -> list[str]:
    """Return the fields of `/proc/PID/stat` from the state on; see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
