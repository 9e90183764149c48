"""Whether somebody answers where the environment says that an emulator is."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from daemon.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_SECONDS = 2.0
DEFAULT_PORTS = {"http": 80, "https": 443}


def silent_emulators(named: Mapping[str, str]) -> list[str]:
    """One sentence for each variable at whose address nobody takes a connection.

    Raises:
        SettingsError: A variable holds no address at all.
    """
    addresses = {name: _address(name, value) for name, value in named.items()}
    return [
        f"{name}: nothing answers at {host}:{port}"
        for name, (host, port) in addresses.items()
        if not _answers(host, port)
    ]


def _address(name: str, value: str) -> tuple[str, int]:
    parts = urlsplit(value if "://" in value else f"//{value}")
    try:
        host, port = parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:  # a port that is none
        host, port = None, None
    if not host or not port:
        raise SettingsError([f"{name}: expected host:port, got {value!r:.100}"])
    return host, port


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            return True
    except (OSError, UnicodeError):  # UnicodeError: a host name that can't be one
        return False
