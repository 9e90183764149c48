"""A TCP proxy whose connections can fall silent: they stay open, take everything and answer nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class SwallowingProxy:
    """Forwards connections to `address`, until `swallow` is called; later connections are forwarded again.

    Attributes:
        address: Where it listens.
        accepted: How many connections it has accepted.
    """

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = 0
        self._silent = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for one in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def swallow(self) -> None:
        """Take and drop from now on whatever comes on the connections that are open now."""
        self._silent.set()
        self._silent = threading.Event()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:  # it is down: then this end is closed too
                    near.close()
                    continue
                self._sockets += [near, far]
                self.accepted += 1
                for source, sink in ((near, far), (far, near)):
                    arguments = (source, sink, self._silent)
                    threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                if not silent.is_set():
                    sink.sendall(content)
            if not silent.is_set():
                sink.shutdown(socket.SHUT_WR)
