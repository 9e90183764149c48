"""Processes that are measured: started, read line by line, weighed from outside, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
END_SECONDS = 60.0


class Measured:
    """`python -m MODULE` whose JSON lines are counted by event.

    Args:
        module: What is run: `daemon` or `benchmarks.floor`.
        environment: Its settings.

    Attributes:
        started_at: When the process was asked for, by the monotonic clock.
    """

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        self._counts: Counter[str] = Counter()
        self._changed = threading.Condition()
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, name="lines", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(END_SECONDS)

    def wait_for(self, event: str, count: int = 1, *, seconds: float = 120.0) -> None:
        """Wait until an event was logged so often.

        Raises:
            TimeoutError: It was not.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._counts[event] >= count, seconds):
                raise TimeoutError(f"{self._counts[event]} of {count} x {event} within {seconds:g} s")

    def count(self, event: str) -> int:
        """How often it was logged so far."""
        with self._changed:
            return self._counts[event]

    def cpu_seconds(self) -> float:
        """Processor time of all its threads until now."""
        fields = (
            Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_mib(self) -> float:
        """Resident memory now, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def stop(self) -> float:
        """SIGTERM; seconds until it has ended.

        Raises:
            RuntimeError: It did not end well.
        """
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(END_SECONDS)
        if code:
            raise RuntimeError(f"exit code {code}")
        return time.monotonic() - began

    def _read(self) -> None:
        for line in self._process.stdout or ():
            name = json.loads(line).get("event")
            with self._changed:
                self._counts[name] += 1
                self._changed.notify_all()
