"""The process that starts and ends the renderers, as the daemon sees it; see `server`."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MODULE = "worker_chart_export.charts.local.processes.server"
_NUMBER = struct.Struct("q")
#: The time to load the drawing libraries: half a second, or more on a busy machine.
START_SECONDS = 60.0
#: The time for an answer: a fork, or the end of a process.
ANSWER_SECONDS = 5.0
#: The time to end the renderers. Then it is ended, and the kernel ends them.
CLOSE_SECONDS = 1.0
#: The variables that a Python process may need, by the beginnings of their names. Others may hold secrets.
_NEEDED = ("PATH", "LANG", "LC_", "LD_", "TZ", "TMPDIR", "PYTHON", "COVERAGE")


class RendererEnded(Exception):
    """A renderer process ended before it had a result, or was never started.

    The text completes a sentence whose subject is that process.
    """


class ServerProcess:
    """The parent of the renderer processes; it is started at once. Thread-safe.

    Raises:
        RendererEnded: It can't be started.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_ready = False
        # It keeps the borders of messages.
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            try:
                # A signal to the daemon's process group does not reach it: only the daemon decides.
                self._process = subprocess.Popen(  # noqa: S603 - this package
                    [sys.executable, "-P", "-m", _MODULE],
                    stdin=other.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=_environment(),
                    process_group=0,
                )
            except OSError as error:
                self._control.close()
                raise RendererEnded(f"could not be started: {error}") from error

    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return self._process.poll() is None

    def wait_until_ready(self, check: Callable[[], None], *, every_seconds: float) -> None:
        """Wait until the drawing libraries are loaded; call `check` every so many seconds.

        Raises:
            RendererEnded: The process ended, or takes too long.
        """
        if self._is_ready:
            return
        deadline = time.monotonic() + START_SECONDS
        self._control.settimeout(every_seconds)
        while not self._is_ready:
            try:
                self._is_ready = bool(self._control.recv(_NUMBER.size))
            except TimeoutError:
                check()
                if time.monotonic() < deadline:
                    continue
            except OSError:
                pass
            if not self._is_ready:
                self.close()
                raise RendererEnded("could not be started: it did not load the drawing libraries")
        self._control.settimeout(ANSWER_SECONDS)

    def start_renderer(self, stream: socket.socket) -> int:
        """Start a renderer that serves `stream`; return its process id.

        Raises:
            RendererEnded: It could not be started.
        """
        try:
            with self._lock:
                socket.send_fds(self._control, [b"+"], [stream.fileno()])
                pid = self._answer()
        except (OSError, struct.error) as error:
            self.close()
            raise RendererEnded(f"could not be started: {error!r}") from error
        if pid < 0:
            raise RendererEnded("could not be started: the system has no room for it")
        return pid

    def end(self, pid: int) -> str:
        """End a renderer, if it has not ended, and return how it ended. Each may be ended once."""
        try:
            with self._lock:
                self._control.send(_NUMBER.pack(pid))
                status = self._answer()
        except (OSError, struct.error):
            self.close()  # the kernel ends all its children
            return "ended with its parent"
        code = os.waitstatus_to_exitcode(status)
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def close(self) -> None:
        """End this process and all its renderers. It ends by itself when its socket is closed."""
        self._control.close()
        try:
            self._process.wait(CLOSE_SECONDS if self._is_ready else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(ANSWER_SECONDS)

    def _answer(self) -> int:
        (number,) = _NUMBER.unpack(self._control.recv(_NUMBER.size))
        return int(number)


def _environment() -> dict[str, str]:
    """Return the environment of the process: the same modules, one thread, no secrets."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_NEEDED)}
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**kept, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
