"""Real daemon processes under test: started, observed through their log lines, signalled, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from tests.support.process.fork_server import ROOT, ForkedProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

START_TIMEOUT_SECONDS = 30.0


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a process needs of this machine, and `environment`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV") if name in os.environ}
    return {**kept, **environment}


def _new_interpreter(
    module: str,
    *,
    environment: Mapping[str, str],
    stdout: int,
    stderr: int,
    python: str | Path = sys.executable,
    folder: Path = ROOT,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [python, "-m", module],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
    )


class DaemonUnderTest:
    """`python -m daemon` with both output streams captured line by line.

    Args:
        environment: Its settings.
        module: The module to run in place of `daemon`.
        fresh: Start a new interpreter instead of a fork: for tests of the start and the end themselves.
        python: The interpreter of another installation of the worker, in place of the one under test.

    Attributes:
        events: The JSON lines so far.
        other_output: Lines that are not JSON objects; in `json` format there must be none.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        module: str = "daemon",
        fresh: bool = False,
        python: Path | None = None,
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.other_output: list[str] = []
        self._changed = threading.Condition()
        (stdout, out), (stderr, err) = os.pipe(), os.pipe()
        start: Callable[..., subprocess.Popen[bytes] | ForkedProcess] = ForkedProcess
        if python is not None:  # `-m` also finds modules in the current folder
            start = partial(_new_interpreter, python=python, folder=python.parent)
        elif fresh:
            start = _new_interpreter
        try:
            self.process = start(module, environment=clean_environment(environment), stdout=out, stderr=err)
        finally:
            os.close(out)
            os.close(err)
        self._readers = [
            threading.Thread(target=self._read, args=(descriptor,), daemon=True)
            for descriptor in (stdout, stderr)
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    def started(self) -> Self:
        """Wait until the stream is open."""
        self.wait_for_event("daemon_started", timeout_seconds=START_TIMEOUT_SECONDS)
        return self

    def named(self, event: str) -> list[dict[str, Any]]:
        """Return all lines of one event so far."""
        with self._changed:
            return [line for line in self.events if line.get("event") == event]

    def wait_for_event(
        self, event: str, *, count: int = 1, timeout_seconds: float = 30.0
    ) -> list[dict[str, Any]]:
        """Wait until the event was logged `count` times; fail with the last lines on a timeout."""
        self.wait_until(lambda: len(self.named(event)) >= count, f"{count} x {event}", timeout_seconds)
        return self.named(event)

    def wait_until(self, holds: Callable[[], bool], what: str, timeout_seconds: float) -> None:
        """Wait until `holds()` is true, with a check at each new line."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while not holds():
                left = deadline - time.monotonic()
                ended = self.process.poll() is not None and not any(r.is_alive() for r in self._readers)
                if left <= 0 or ended:
                    tail = "\n".join(map(str, self.events[-15:] + self.other_output[-15:]))
                    raise AssertionError(
                        f"waited for {what}; exit {self.process.poll()}; last lines:\n{tail}"
                    )
                self._changed.wait(min(left, 0.5))

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def terminate(self, timeout_seconds: float = 40.0) -> int:
        """Send SIGTERM and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_seconds)

    def wait(self, timeout_seconds: float = 40.0) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(timeout_seconds)
        for reader in self._readers:
            reader.join(5)
        return code

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait(10)

    def _read(self, descriptor: int) -> None:
        with open(descriptor) as pipe:
            for line in pipe:
                try:
                    event = json.loads(line)
                except ValueError:
                    event = None
                with self._changed:
                    (self.events if isinstance(event, dict) else self.other_output).append(event or line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
