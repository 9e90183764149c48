"""The HTTP server of the health port.

It answers GET and HEAD only. Its headers forbid browsers to store a response or to use it in another page.
The reasons for a server of our own: docs/decisions/0001-health-server.md.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

from worker_chart_export.backends.errors import lacks_resources
from worker_chart_export.observability.logs import Event, log

#: How often the server's loop checks for slow clients and for the stop.
POLL_SECONDS = 0.1
#: A connection is closed after this time, even if its client keeps sending.
MAX_CONNECTION_SECONDS = 10.0
#: The limit of open connections; one more closes the oldest.
MAX_CONNECTIONS = 64
#: The limit of connections not yet accepted: a browser opens several, and no probe may be lost behind them.
BACKLOG = 128
#: A proxy forwards the requests of other machines and says so (RFC 9110, 7.6.3; RFC 7239; older practice).
PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "Via")
#: The values of `Sec-Fetch-Site` for a page of this server, and for an address that a person has entered.
OWN_SITES = ("same-origin", "none")
#: No response may be stored, interpreted as another content type, or used by another page.
STRICT_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A GET or HEAD request.

    Attributes:
        query: The part of the target after `?`.
        accept: The `Accept` header, or an empty string.
        host: The `Host` header, or an empty string.
        client: The address of the client.
        port: The port of the server.
        is_forwarded: True if a proxy has forwarded it.
        is_cross_site: True if a browser sent it for a page of another origin.
    """

    query: str
    accept: str
    host: str
    client: str
    port: int
    is_forwarded: bool = False
    is_cross_site: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response.

    Attributes:
        headers: More headers; they replace those of `STRICT_HEADERS`.
    """

    status: HTTPStatus = HTTPStatus.OK
    content_type: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


#: Answers a GET. A HEAD gets the same response without the content.
Responder = Callable[[Request], Response]

_NOT_FOUND = Response(
    status=HTTPStatus.NOT_FOUND, content_type="application/json", content=b'{"status": "not found"}'
)
_NOT_ALLOWED = Response(
    status=HTTPStatus.METHOD_NOT_ALLOWED,
    content_type="text/plain; charset=utf-8",
    content=b"Only GET and HEAD are answered here.\n",
    headers={"Allow": "GET, HEAD"},
)


class HealthServer:
    """Serves routes from a separate thread.

    Args:
        host: The address to listen on.
        port: The port; 0 takes a free one.
        routes: The responders, by path.

    Raises:
        OSError: The port is busy.
    """

    def __init__(self, *, host: str, port: int, routes: Mapping[str, Responder]) -> None:
        self._server = _Server((host, port), routes)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name="health", daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_port

    def start(self) -> None:
        """Answer requests from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering, and free the port."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, address: tuple[str, int], routes: Mapping[str, Responder]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.routes = routes
        self._deadlines: dict[socket.socket, float] = {}
        super().__init__(address, _Handler)

    def get_request(self) -> Any:
        """Accept a connection. Without file descriptors or memory for it, wait before the next attempt.

        The connection stays in the queue, so the loop of the base class would try again without a pause.
        """
        try:
            return super().get_request()
        except OSError as error:
            if lacks_resources(error):
                time.sleep(POLL_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a new thread, so that slow clients never delay a probe."""
        if len(self._deadlines) >= MAX_CONNECTIONS:
            self._disconnect(next(iter(self._deadlines)))
        self._deadlines[request] = time.monotonic() + MAX_CONNECTION_SECONDS
        super().process_request(request, client_address)

    def _disconnect(self, request: socket.socket) -> None:
        """Shut the connection down; its thread notices that and ends."""
        self._deadlines.pop(request, None)
        with suppress(OSError):  # it has just ended by itself
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that is answered or disconnected."""
        self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Disconnect slow clients; the server's loop calls this."""
        now = time.monotonic()
        for request in [request for request, end in list(self._deadlines.items()) if end < now]:
            self._disconnect(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log an error, where the base class prints it. A client that disconnects is no error."""
        del request
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error(Event.INTERNAL_ERROR, f"Answering {client_address} failed: {error!r}", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "worker-chart-export"
    sys_version = ""
    response_headers: Mapping[str, str] = MappingProxyType({})

    def do_GET(self) -> None:
        self.wfile.write(self._send_headers(self._respond()).content)

    def do_HEAD(self) -> None:
        self._send_headers(self._respond())

    def do_POST(self) -> None:
        self.wfile.write(self._send_headers(_NOT_ALLOWED).content)

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = do_POST  # noqa: N815 - names of the base class

    def _respond(self) -> Response:
        path, _, query = self.path.partition("?")
        if path not in self.server.routes:
            return _NOT_FOUND
        return self.server.routes[path](
            Request(
                query=query,
                accept=self.headers.get("Accept", ""),
                host=self.headers.get("Host", ""),
                client=str(self.client_address[0]),
                port=self.server.server_port,
                is_forwarded=any(name in self.headers for name in PROXY_HEADERS),
                is_cross_site=self.headers.get("Sec-Fetch-Site", OWN_SITES[0]) not in OWN_SITES,
            )
        )

    def _send_headers(self, response: Response) -> Response:
        self.response_headers = response.headers
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        return response

    def end_headers(self) -> None:
        # Here, so that the error pages of the base class get the headers too.
        for name, value in {**STRICT_HEADERS, **self.response_headers}.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_args: object) -> None:
        """Log nothing: probes come every few seconds."""
