"""Messages over a stream socket: a length of eight bytes, then so many bytes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_LENGTH = struct.Struct(">Q")


def _nothing() -> None:
    """Do nothing when a socket was idle."""


def send_message(stream: socket.socket, message: bytes, *, on_idle: Callable[[], None] = _nothing) -> None:
    """Send one message.

    Args:
        stream: The socket.
        message: The bytes.
        on_idle: Called each time the socket's timeout passes. An error that it raises ends the call.

    Raises:
        OSError: The other side has ended.
    """
    for part in (_LENGTH.pack(len(message)), message):
        rest = memoryview(part)
        while rest:
            try:
                rest = rest[stream.send(rest) :]
            except TimeoutError:
                on_idle()


def receive_message(stream: socket.socket, *, on_idle: Callable[[], None] = _nothing) -> bytearray:
    """Receive one message; arguments as for `send_message`.

    Raises:
        EOFError: The other side has ended.
        OSError: The same, in the middle of a message.
    """
    (length,) = _LENGTH.unpack(_receive(stream, _LENGTH.size, on_idle))
    return _receive(stream, length, on_idle)


def _receive(stream: socket.socket, length: int, on_idle: Callable[[], None]) -> bytearray:
    data = bytearray(length)
    rest = memoryview(data)
    while rest:
        try:
            received = stream.recv_into(rest)
        except TimeoutError:
            on_idle()
            continue
        if not received:
            raise EOFError
        rest = rest[received:]
    return data
