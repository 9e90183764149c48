"""A stand-in for systemd's notify socket: takes datagrams and keeps them with the time they came."""

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
    """What came at once.

    Attributes:
        at: When, by the monotonic clock.
        lines: Its lines.
    """

    at: float
    lines: tuple[str, ...]


class NotifySocket:
    """Listens like systemd does.

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
        """All so far."""
        with self._came:
            return list(self._datagrams)

    def times_of(self, line: str) -> list[float]:
        """When the line came."""
        return [datagram.at for datagram in self.datagrams if line in datagram.lines]

    def values_of(self, name: str) -> list[str]:
        """What the variable was set to, in order."""
        lines = [line for datagram in self.datagrams for line in datagram.lines]
        return [value for found, _, value in (line.partition("=") for line in lines) if found == name]

    def wait_until(self, holds: Callable[[], bool], timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait, looking at each new datagram, until `holds()`."""
        deadline = time.monotonic() + timeout_seconds
        while not holds():
            with self._came:
                came = len(self._datagrams)
                assert time.monotonic() < deadline, f"the last of {came}: {self._datagrams[-10:]}"
                self._came.wait_for(lambda before=came: len(self._datagrams) > before, 0.1)

    def wait_for(self, line: str, *, count: int = 1, timeout_seconds: float = TIMEOUT_SECONDS) -> list[float]:
        """Wait until the line came `count` times; returns when."""
        self.wait_until(lambda: len(self.times_of(line)) >= count, timeout_seconds)
        return self.times_of(line)

    def _listen(self) -> None:
        while datagram := self._socket.recv(65536):
            with self._came:
                lines = tuple(datagram.decode().split("\n"))
                self._datagrams.append(Datagram(at=time.monotonic(), lines=lines))
                self._came.notify_all()
