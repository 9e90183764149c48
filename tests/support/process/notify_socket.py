"""A stand-in for systemd's notify socket that keeps datagrams with their times."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """One datagram.

    Attributes:
        at: The monotonic time of arrival.
        lines: Its lines.
    """

    at: float
    lines: tuple[str, ...]


class NotifySocket:
    """A socket that listens as systemd does.

    Args:
        address: A path, or `@name` for the abstract namespace.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._datagrams: list[Datagram] = []
        self._came = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT_SECONDS)
        self._socket.close()

    @property
    def datagrams(self) -> list[Datagram]:
        """Return all datagrams so far."""
        with self._came:
            return list(self._datagrams)

    def times_of(self, line: str) -> list[float]:
        """Return the times of the line."""
        return [datagram.at for datagram in self.datagrams if line in datagram.lines]

    def values_of(self, name: str) -> list[str]:
        """Return the values of the variable in order."""
        lines = [line for datagram in self.datagrams for line in datagram.lines]
        return [value for found, _, value in (line.partition("=") for line in lines) if found == name]

    def wait_until(self, holds: Callable[[], bool], timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait until `holds()` is true, with a check at each new datagram."""
        deadline = time.monotonic() + timeout_seconds
        while not holds():
            with self._came:
                came = len(self._datagrams)
                assert time.monotonic() < deadline, f"the last of {came}: {self._datagrams[-10:]}"
                self._came.wait_for(lambda before=came: len(self._datagrams) > before, 0.1)

    def wait_for(self, line: str, *, count: int = 1, timeout_seconds: float = TIMEOUT_SECONDS) -> list[float]:
        """Wait until the line arrived `count` times; return the time."""
        self.wait_until(lambda: len(self.times_of(line)) >= count, timeout_seconds)
        return self.times_of(line)

    def _listen(self) -> None:
        while datagram := self._socket.recv(65536):
            with self._came:
                lines = tuple(datagram.decode().split("\n"))
                self._datagrams.append(Datagram(at=time.monotonic(), lines=lines))
                self._came.notify_all()
