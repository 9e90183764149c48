"""Processes forked from a parent that has imported the daemon: a start takes 50 ms and not 1.2 s.

`ForkedProcess` replaces `subprocess.Popen([sys.executable, "-m", module, ...])`. The parent is a separate
process, one for each process of pytest. It only imports modules and forks. It opens no gRPC channel and
starts no thread, because neither survives a fork.

Tests of the start itself, or of a fresh interpreter, use `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from daemon.lifecycle.library_defaults import set_library_defaults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[3]
#: Modules that every process imports, with all modules of `daemon.cli`. Commands import what they run late.
PRELOADED = (
    "daemon.main",
    "daemon.cli.app",
    "localcloud",
    "worker_chart_export.charts.local.render",
)
_MAX_REQUEST_BYTES = 1 << 20
_NUMBER = struct.Struct("q")
_starting = threading.Lock()


class ForkedProcess:
    """`python -m module`, forked; with the methods of `subprocess.Popen` that tests use.

    Args:
        module: The module to run.
        arguments: Its command-line arguments.
        environment: Its whole environment.
        stdout: Descriptor of its standard output.
        stderr: Descriptor of its standard error.

    Attributes:
        pid: Its process id.
        returncode: As in `subprocess.Popen`; None until `poll` or `wait` returned it.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
    ) -> None:
        self.args = [module, *arguments]
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._reports, reports = os.pipe()
        try:
            request = json.dumps([module, list(arguments), dict(environment)]).encode()
            socket.send_fds(_server(), [request], [stdout, stderr, reports])
        finally:
            os.close(reports)
        self.pid = self._next_report()

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        with self._lock:
            if self.returncode is None and _readable(self._reports, seconds=0):
                self.returncode = os.waitstatus_to_exitcode(self._next_report())
                os.close(self._reports)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: It is still running.
        """
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            # Another thread can read the last report in between, so each wait is short.
            _readable(self._reports, seconds=min(left, 0.5))
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _next_report(self) -> int:
        report = os.read(self._reports, _NUMBER.size)
        if not report:
            raise RuntimeError("the fork server has ended")
        return int(_NUMBER.unpack(report)[0])


def _readable(pipe: int, *, seconds: float) -> bool:
    """Return within `seconds`: True if the pipe has something to read, or has ended."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _server() -> socket.socket:
    """Return the connection to this process's fork server, which is started at the first call."""
    with _starting:
        return _started_server()


@functools.cache
def _started_server() -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(its.fileno())],
        cwd=ROOT,
        env={**kept, "OPENBLAS_NUM_THREADS": "1"},  # it would start threads at import
        pass_fds=[its.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for pytest
    )
    its.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class _Server:
    """Forks a process for each request and reports its process id, and its wait status when it ends."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._given = dict(os.environ)
        self._children: dict[int, tuple[int, int]] = {}  # by pidfd: process id, pipe for reports
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Serve until pytest closes its end; what still runs then is killed."""
        gc.disable()  # the modules stay: to look for garbage among them takes an eighth of this start
        set_library_defaults()
        for name in (*PRELOADED, *_commands()):
            importlib.import_module(name)
        if len(list(Path("/proc/self/task").iterdir())) != 1:
            raise RuntimeError("an import has started a thread: forked processes would lack it")
        gc.freeze()
        gc.enable()
        self._selector.register(self._requests, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._requests:
                    self._reap(key.fd)
                elif not self._fork():
                    for pid, _reports in self._children.values():
                        os.kill(pid, signal.SIGKILL)
                    return

    def _fork(self) -> bool:
        request, descriptors, *_ = socket.recv_fds(self._requests, _MAX_REQUEST_BYTES, 3)
        if not request:
            return False
        stdout, stderr, reports = descriptors
        pid = os.fork()
        if pid == 0:
            self._become(*json.loads(request), stdout=stdout, stderr=stderr)
        os.close(stdout)
        os.close(stderr)
        _report(reports, pid)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid, reports
        self._selector.register(pidfd, selectors.EVENT_READ)
        return True

    def _reap(self, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        pid, reports = self._children.pop(pidfd)
        _report(reports, os.waitpid(pid, 0)[1])
        os.close(reports)
        os.close(pidfd)

    def _become(
        self, module: str, arguments: list[str], environment: dict[str, str], *, stdout: int, stderr: int
    ) -> NoReturn:
        """Run `module` as `python -m` does, in this forked process, and end it."""
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sys.stdin, sys.stdout = open(0), open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        imports_set = {name: value for name, value in os.environ.items() if name not in self._given}
        os.environ.clear()
        os.environ.update({**imports_set, **environment})
        sys.argv = [module, *arguments]
        code = _run(module)
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)


def _run(module: str) -> int:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
        return 1
    return 0


def _report(pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # no caller waits for it
        os.write(pipe, _NUMBER.pack(number))


def _commands() -> list[str]:
    package = importlib.import_module("daemon.cli")
    found = pkgutil.walk_packages(package.__path__, prefix="daemon.cli.")
    return [module.name for module in found if not module.name.endswith("__main__")]


if __name__ == "__main__":
    _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
