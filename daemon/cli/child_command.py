"""Run another command as a child, pass signals on to it, and leave none of its processes behind.

The child is forked before this process has threads, because a fork keeps only one of them. It waits for its
environment, and becomes the command when it gets it. Linux only, as the whole program.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from daemon.reports.wording import plural

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

#: The exit codes of a POSIX shell.
NOT_FOUND, NOT_EXECUTABLE, ENDED_BY_SIGNAL = 127, 126, 128
#: Signals that are sent on to the command. They are blocked here from the start.
FORWARDED = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)
AWAITED = FORWARDED | {signal.SIGCHLD}
#: `si_code` of a signal of the kernel: a terminal sends Ctrl-C to the command too.
SI_KERNEL = 0x80
#: Processes that the command left get SIGTERM, and SIGKILL after this time: longer than a daemon drains.
LEFTOVER_SECONDS = 30.0
LOOK_SECONDS = 0.2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class ChildCommand:
    """A child process that becomes a command. Make it before the first thread is started.

    Args:
        command: The program and its arguments.
    """

    def __init__(self, command: Sequence[str]) -> None:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
        # What the command leaves behind becomes a child of this process, which can then end it.
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        environments, self._environment = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._environment)
            _become(command, environments, parent, mask)
        os.close(environments)

    def run(self, environment: Mapping[str, str]) -> int:
        """Start the command, wait for its end, and end the processes that it left.

        Returns:
            Its exit code, or the negative number of the signal that ended it. 127: there is no such command.
            126: it can't be executed.
        """
        with os.fdopen(self._environment, "w", encoding="utf-8") as pipe:
            json.dump(dict(environment), pipe)
        code = self._wait()
        _end_leftovers()
        return code

    def _wait(self) -> int:
        ended: dict[int, int] = {}
        while self._pid not in ended:
            info = signal.sigwaitinfo(AWAITED)
            if info.si_signo == signal.SIGCHLD:
                ended = _reap()
            elif info.si_code != SI_KERNEL:
                os.kill(self._pid, info.si_signo)
        return os.waitstatus_to_exitcode(ended[self._pid])


def _become(command: Sequence[str], environments: int, parent: int, mask: Collection[int]) -> NoReturn:
    """Wait for the environment, then replace this process by the command, with this signal mask."""
    # A parent that is killed ends the command too. An interactive shell ignores SIGTERM.
    _prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
    if os.getppid() != parent:
        os._exit(ENDED_BY_SIGNAL)
    try:
        with os.fdopen(environments, encoding="utf-8") as pipe:
            content = pipe.read()
        if not content:  # the parent could not start what the command needs
            os._exit(ENDED_BY_SIGNAL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
            signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvpe(command[0], list(command), json.loads(content))  # noqa: S606 - what the person gave
    except OSError as error:
        os.write(2, f"error: {command[0]}: {error.strerror}\n".encode(errors="backslashreplace"))
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)
    finally:
        os._exit(NOT_EXECUTABLE)


def _end_leftovers() -> None:
    """End the processes that the command left running: SIGTERM, and SIGKILL if they don't end in time.

    A stop signal, for example Ctrl-C, ends them at once.
    """
    asked: set[int] = set()
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while children := _children():
        left = deadline - time.monotonic()
        number, asked_now = (signal.SIGTERM, children - asked) if left > 0 else (signal.SIGKILL, children)
        if not asked:
            typer.echo(f"Ending {plural(len(children), 'program')} that the command left running", err=True)
        for pid in asked_now:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        asked |= children
        # Not longer: what a process leaves behind becomes a child of this one without a signal.
        info = signal.sigtimedwait(AWAITED, LOOK_SECONDS)
        if info is not None and info.si_signo != signal.SIGCHLD:
            deadline = time.monotonic()
        _reap()


def end_by_signal(number: int) -> NoReturn:
    """End this process as that signal does, so that a shell script that runs it ends on Ctrl-C too."""
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    sys.exit(ENDED_BY_SIGNAL + number)  # the signal does not end a process, or not this one


def _reap() -> dict[int, int]:
    """Return the wait status of each child that has ended, by process id."""
    ended: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def _children() -> set[int]:
    """Return the processes whose parent is this process."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended
                # After the name, which may hold anything, come the state and the parent. Z: it has ended.
                state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if int(parent) == os.getpid() and state != "Z":
                    found.add(int(entry.name))
    return found


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None).prctl(option, value, 0, 0, 0) != 0:
        sys.exit(f"prctl {option} failed")
