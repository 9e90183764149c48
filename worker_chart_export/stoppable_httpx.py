"""An httpx client whose calls end when their step is stopped, see `stoppable_sockets`.

httpx has no setting for the network below its connections: this module alone reaches through to it.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpcore

from worker_chart_export.stoppable_sockets import hold, let_go

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

    import httpx


def make_stoppable(client: httpx.Client) -> None:
    """Let calls of this client be stopped, its proxies' included."""
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001 - see above
        if transport is not None:  # None: a host that the environment excludes from its proxies
            pool: Any = transport._pool  # type: ignore[attr-defined] # noqa: SLF001
            pool._network_backend = _Backend(pool._network_backend)  # noqa: SLF001


class _Backend(httpcore.NetworkBackend):
    """Opens connections as `backend` does."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect."""
        return _Stream(self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Connect."""
        return _Stream(self._backend.connect_unix_socket(path, timeout, socket_options))

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._backend.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    """A connection whose socket the current call holds while it blocks on it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    @contextmanager
    def _held(self) -> Iterator[None]:
        held = self._stream.get_extra_info("socket")
        if isinstance(held, socket.socket):
            hold(self, held)
        try:
            yield
        finally:
            let_go(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read some bytes."""
        with self._held():
            return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all."""
        with self._held():
            self._stream.write(buffer, timeout)

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted from now on."""
        with self._held():
            return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        """What the network knows about it."""
        return self._stream.get_extra_info(info)
