"""`/livez`, `/readyz` and `/metrics` over HTTP, for probes and scrapes on this machine or from a cluster."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from worker_chart_export import metrics
from worker_chart_export.logs import Event, log

if TYPE_CHECKING:
    from daemon.checkup import Checkup

#: How long stopping may wait for the server's loop to notice.
POLL_SECONDS = 0.1
#: Whoever connects and says nothing is let go.
SILENCE_SECONDS = 10.0
#: An answer is of its moment, and what its content type says.
STRICT_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request is answered with."""

    status: HTTPStatus
    content_type: str
    content: bytes


#: Answers a GET from its `Accept` header, empty if there is none. A HEAD gets the same without the content.
Responder = Callable[[str], Answer]


def health_routes(
    *, liveness: Callable[[], Checkup], readiness: Callable[[], Checkup]
) -> dict[str, Responder]:
    """The paths that are served, and who answers there."""
    return {
        "/livez": lambda _accept: _answer_of(liveness(), otherwise="not alive"),
        "/readyz": lambda _accept: _answer_of(readiness(), otherwise="not ready"),
        "/metrics": _scrape,
    }


def _answer_of(checkup: Checkup, *, otherwise: str) -> Answer:
    """200 has it left alone; 503 has it restarted, or taken out of a load balancer."""
    if checkup.reason is None:
        return _json(HTTPStatus.OK, {"status": "ok", "parts": checkup.parts})
    body = {"status": otherwise, "reason": checkup.reason, "parts": checkup.parts}
    return _json(HTTPStatus.SERVICE_UNAVAILABLE, body)


def _scrape(accept: str) -> Answer:
    content, content_type = metrics.exposition(accept)
    return Answer(status=HTTPStatus.OK, content_type=content_type, content=content)


def _not_found(_accept: str) -> Answer:
    return _json(HTTPStatus.NOT_FOUND, {"status": "not found"})


def _json(status: HTTPStatus, body: Mapping[str, object]) -> Answer:
    return Answer(status=status, content_type="application/json", content=json.dumps(body).encode())


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
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; anything else is a log line, where the base class prints."""
        del request
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error(Event.INTERNAL_ERROR, f"Answering {client_address} failed: {error!r}", exc_info=error)


def _handler_of(routes: Mapping[str, Responder]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = SILENCE_SECONDS
        server_version = "worker-chart-export"
        sys_version = ""

        def do_GET(self) -> None:
            self.wfile.write(self._head().content)

        def do_HEAD(self) -> None:
            self._head()

        def _head(self) -> Answer:
            """Send all but the content."""
            respond = routes.get(self.path.partition("?")[0], _not_found)
            answer = respond(self.headers.get("Accept", ""))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            return answer

        def end_headers(self) -> None:
            for name, value in STRICT_HEADERS.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_args: object) -> None:
            """Probes come every few seconds and are no news."""

    return Handler
