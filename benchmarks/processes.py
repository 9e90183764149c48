"""Measured processes: start one, count its log lines, read its CPU time and memory, stop it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
END_SECONDS = 60.0
#: Lines of these severities may explain why a process ended or hangs.
PROBLEM_SEVERITIES = ("WARNING", "ERROR", "CRITICAL")
KEPT_LINES = 20


def cpu_seconds_of(pid: int) -> float:
    """Return the processor time of a process so far, all its threads (proc(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def status_of(pid: int, name: str) -> int:
    """Return a number of a process's status, e.g. `Threads`; memory (`VmRSS`, `VmHWM`) in KiB (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def descriptors_of(pid: int) -> int:
    """Return how many file descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class Measured:
    """A process `python -m MODULE` whose JSON log lines are counted by event.

    Args:
        module: `daemon` or `benchmarks.floor`.
        environment: Its environment variables.

    Attributes:
        started_at: The start of the process, by the monotonic clock.
    """

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        self._module = module
        self._counts: Counter[str] = Counter()
        self._problems: deque[str] = deque(maxlen=KEPT_LINES)
        self._has_ended = False
        self._changed = threading.Condition()
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # a traceback is a reason too
            encoding="utf-8",
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, name="lines", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()  # does nothing to one that has ended
        self._process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)

    def wait_for(self, event: str, count: int = 1, *, seconds: float = 120.0) -> None:
        """Wait until an event was logged `count` times.

        Raises:
            TimeoutError: It was logged fewer times.
            RuntimeError: The process ended first.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self._counts[event] >= count, seconds)
            logged, has_ended = self._counts[event], self._has_ended
        if logged >= count:
            return
        missing = f"{logged} of {count} x {event}"
        if has_ended:
            raise RuntimeError(
                self._with_last_lines(f"exit code {self._process.wait(END_SECONDS)} after {missing}")
            )
        raise TimeoutError(self._with_last_lines(f"{missing} within {seconds:g} s"))

    def count(self, event: str) -> int:
        """Return how often the event was logged so far."""
        with self._changed:
            return self._counts[event]

    def cpu_seconds(self) -> float:
        """Return the processor time of all its threads so far."""
        return cpu_seconds_of(self._process.pid)

    def rss_mib(self) -> float:
        """Return its resident memory in MiB."""
        return status_of(self._process.pid, "VmRSS") / 1024

    def stop(self) -> float:
        """Send SIGTERM and return the seconds until the process has ended.

        Raises:
            RuntimeError: Its exit code is not 0.
        """
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(END_SECONDS)
        seconds = time.monotonic() - started
        self._reader.join(END_SECONDS)
        if code:
            raise RuntimeError(self._with_last_lines(f"exit code {code} after SIGTERM"))
        return seconds

    def _read(self) -> None:
        """Read lines until the process ends; pass on lines that are not log lines."""
        for line in self._process.stdout or ():
            entry = _entry(line)
            if entry is None:
                sys.stderr.write(line)
            self._record(line, entry)
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _record(self, line: str, entry: Mapping[str, Any] | None) -> None:
        with self._changed:
            if entry is None or entry.get("severity") in PROBLEM_SEVERITIES:
                self._problems.append(line.rstrip())
            if entry is not None:
                self._counts[str(entry.get("event"))] += 1
                self._changed.notify_all()

    def _with_last_lines(self, message: str) -> str:
        """Return the message with the last lines that may explain it."""
        with self._changed:
            return "\n".join([f"{self._module}: {message}", *self._problems])


def _entry(line: str) -> dict[str, Any] | None:
    """Parse a log line; return None if it is not one."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
