"""The daemon of the demo: a child process whose log lines are read as they arrive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

from daemon.cli.demo.variables import DEFAULTS, PLACES
from daemon.settings import Settings
from daemon.settings.tracing import TracingSwitch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STOP_SECONDS = 30.0


class DaemonProcess:
    """`python -m daemon` on the demo's resources; a context manager that drains the daemon at the end.

    Args:
        environment: The addresses of the emulators.
        on_event: Called with each log line, in a thread of its own.
        on_end: Called with the exit code in the same thread, when the daemon has ended.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        on_event: Callable[[Mapping[str, Any]], None],
        on_end: Callable[[int], None],
    ) -> None:
        self._on_event = on_event
        self._on_end = on_end
        self._process = subprocess.Popen(
            [sys.executable, "-m", "daemon"],
            env=daemon_environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="daemon-log", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SECONDS)

    def _read(self) -> None:
        if self._process.stdout is None:
            raise AssertionError("the process was started with a pipe")
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            self._on_event(
                event if isinstance(event, dict) else {"event": "output", "message": line.rstrip()}
            )
        self._on_end(self._process.wait())


def daemon_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with the demo's worker settings in place of its own.

    The settings of tracing are kept.
    """
    settings = {name.upper() for name in Settings.model_fields.keys() - TracingSwitch.model_fields.keys()}
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in settings}
    return {**inherited, **environment, **PLACES, **DEFAULTS, "HEALTH_PORT": "0"}
