"""A command on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Self

from tests.support.process.daemons import ROOT, clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ESCAPES = re.compile(r"\x1b\].*?\x1b\\|\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """`worker-chart-export` on a terminal of its own, which also controls it: Ctrl-C is a signal.

    Args:
        *arguments: The arguments of the command.
        program: Another program in place of the command.
        environment: Its environment.
        columns: The width of the terminal.
        rows: Its height.
        folder: The current folder.

    Attributes:
        process: The process.
        raw: Its output so far, with escape sequences.
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        program: Sequence[str] = (sys.executable, "-m", "daemon.cli"),
        columns: int = 100,
        rows: int = 40,
        folder: Path = ROOT,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            ["/usr/bin/setsid", "--ctty", *program, *arguments],
            cwd=folder,
            env=clean_environment({"TERM": "xterm-256color", **environment}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.raw = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._master)

    @property
    def text(self) -> str:
        """Return its output without escape sequences."""
        return ESCAPES.sub("", self.raw)

    def type(self, keys: str) -> None:
        """Type on the terminal; the character 3 is Ctrl-C."""
        os.write(self._master, keys.encode())

    def wait_for(self, expected: str, seconds: float = 30) -> None:
        """Read until it has written this text."""
        deadline = time.monotonic() + seconds
        while expected not in self.text:
            assert time.monotonic() < deadline, self.text
            assert self._read(), self.text

    def end(self, seconds: float = 30) -> int:
        """Read all its output; return its exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, self.text
        return self.process.wait(10)

    def _read(self) -> bool:
        if select.select([self._master], [], [], 0.2)[0]:
            try:
                self.raw += os.read(self._master, 65536).decode()
            except OSError:  # the other end is closed
                return False
        return True
