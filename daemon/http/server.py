"""HTTP for this machine and its cluster: `/livez`, `/readyz` and `/metrics`, and what others add.

Only what is asked with GET or HEAD is answered, and no browser may do anything with an answer but show it.
"""

from __future__ import annotations

import json
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
from typing import TYPE_CHECKING, Any

from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from daemon.lifecycle.liveness import HealthReport

#: How long stopping may wait for the server's loop to notice.
POLL_SECONDS = 0.1
#: Whoever has not asked and taken the answer by then is let go, however busily it sends.
PATIENCE_SECONDS = 10.0
#: So many are answered at once; for one more, whoever takes longest is let go.
MAX_AT_ONCE = 64
#: So many may wait to be let in: a browser opens several connections, and no probe may be lost behind them.
BACKLOG = 128
#: A proxy on the same machine brings others in, and says so (RFC 9110, 7.6.3, RFC 7239, and what was before).
PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "Via")
#: An answer is of its moment, and what its content type says; it is for nobody else's page.
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
    """What is asked, and by whom.

    Attributes:
        query: What follows the `?` of the target.
        accept: The `Accept` header, empty if there is none.
        host: The `Host` header, empty if there is none.
        client: The address it comes from.
        port: The port that is listened on.
        is_forwarded: Whether a proxy says that it asks for somebody else.
    """

    query: str
    accept: str
    host: str
    client: str
    port: int
    is_forwarded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request is answered with.

    Attributes:
        headers: More headers; they win over `STRICT_HEADERS`.
    """

    status: HTTPStatus
    content_type: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


#: Answers a GET. A HEAD gets the same without the content.
Responder = Callable[[Request], Answer]


def health_routes(
    *, liveness: Callable[[], HealthReport], readiness: Callable[[], HealthReport]
) -> dict[str, Responder]:
    """The paths that are served, and who answers there."""
    return {
        "/livez": lambda _request: _answer_of(liveness(), otherwise="not alive"),
        "/readyz": lambda _request: _answer_of(readiness(), otherwise="not ready"),
        "/metrics": _scrape,
    }


def _answer_of(health_report: HealthReport, *, otherwise: str) -> Answer:
    """200 has it left alone; 503 has it restarted, or taken out of a load balancer."""
    if health_report.reason is None:
        return _json(HTTPStatus.OK, {"status": "ok", "parts": health_report.parts})
    body = {"status": otherwise, "reason": health_report.reason, "parts": health_report.parts}
    return _json(HTTPStatus.SERVICE_UNAVAILABLE, body)


def _scrape(request: Request) -> Answer:
    content, content_type = metrics.exposition(request.accept)
    return Answer(status=HTTPStatus.OK, content_type=content_type, content=content)


def _not_found(_request: Request) -> Answer:
    return _json(HTTPStatus.NOT_FOUND, {"status": "not found"})


def _json(status: HTTPStatus, body: Mapping[str, object]) -> Answer:
    return Answer(status=status, content_type="application/json", content=json.dumps(body).encode())


_NOT_ALLOWED = Answer(
    status=HTTPStatus.METHOD_NOT_ALLOWED,
    content_type="text/plain; charset=utf-8",
    content=b"Only GET and HEAD are answered here.\n",
    headers={"Allow": "GET, HEAD"},
)


class HealthServer:
    """Serves the routes from a thread of its own.

    Args:
        host: The address to listen on.
        port: The port; 0 takes a free one.
        routes: By path: who answers.

    Raises:
        OSError: The port is busy.
    """

    def __init__(self, *, host: str, port: int, routes: Mapping[str, Responder]) -> None:
        self._server = _Server((host, port), _handler_of(routes))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name="health", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.server_port

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._ends: dict[socket.socket, float] = {}
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own: slow clients never keep a probe out."""
        if len(self._ends) >= MAX_AT_ONCE:
            self._let_go(next(iter(self._ends)))
        self._ends[request] = time.monotonic() + PATIENCE_SECONDS
        super().process_request(request, client_address)

    def _let_go(self, request: socket.socket) -> None:
        """Its thread finds its connection closed."""
        self._ends.pop(request, None)
        with suppress(OSError):  # it has just ended by itself
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """It is answered, or was let go."""
        self._ends.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called by the server's loop: end what takes too long."""
        now = time.monotonic()
        for request in [request for request, end in list(self._ends.items()) if end < now]:
            self._let_go(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; anything else is a log line, where the base class prints."""
        del request
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error(Event.INTERNAL_ERROR, f"Answering {client_address} failed: {error!r}", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "worker-chart-export"
    sys_version = ""
    routes: Mapping[str, Responder]
    more_headers: Mapping[str, str] = MappingProxyType({})

    def do_GET(self) -> None:
        self.wfile.write(self._head(self._answer()).content)

    def do_HEAD(self) -> None:
        self._head(self._answer())

    def do_POST(self) -> None:
        self.wfile.write(self._head(_NOT_ALLOWED).content)

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = do_POST  # noqa: N815 - its base names them

    def _answer(self) -> Answer:
        path, _, query = self.path.partition("?")
        request = Request(
            query=query,
            accept=self.headers.get("Accept", ""),
            host=self.headers.get("Host", ""),
            client=str(self.client_address[0]),
            port=self.server.server_port,
            is_forwarded=any(name in self.headers for name in PROXY_HEADERS),
        )
        return self.routes.get(path, _not_found)(request)

    def _head(self, answer: Answer) -> Answer:
        """Send all but the content."""
        self.more_headers = answer.headers
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        return answer

    def end_headers(self) -> None:
        for name, value in {**STRICT_HEADERS, **self.more_headers}.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_args: object) -> None:
        """Probes come every few seconds and are no news."""


def _handler_of(its_routes: Mapping[str, Responder]) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        timeout = PATIENCE_SECONDS
        routes = its_routes

    return Handler
