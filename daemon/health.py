"""`/livez` and `/readyz` over HTTP, for probes on this machine or from a cluster."""

from __future__ import annotations

import json
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from worker_chart_export.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: How long stopping may wait for the server's loop to notice.
POLL_SECONDS = 0.1


class HealthServer:
    """Serves the health endpoints from a thread of its own.

    Args:
        host: The address to listen on.
        port: The port; 0 takes a free one.
        why_dead: Gives the reason why the process should be restarted, or None when it is alive.
        why_not_ready: Gives the reason why the daemon takes no work, or None when it does.

    Raises:
        OSError: The port is busy.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        why_dead: Callable[[], str | None],
        why_not_ready: Callable[[], str | None],
    ) -> None:
        checks = {"/livez": ("not alive", why_dead), "/readyz": ("not ready", why_not_ready)}
        self._server = _Server((host, port), _handler_of(checks))
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

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; anything else is a log line, where the base class prints."""
        del request
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error(Event.INTERNAL_ERROR, f"Answering {client_address} failed: {error!r}", exc_info=error)


def _handler_of(checks: Mapping[str, tuple[str, Callable[[], str | None]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path not in checks:
                self._answer(HTTPStatus.NOT_FOUND, {"status": "not found"})
                return
            otherwise, why_not = checks[path]
            reason = why_not()
            if reason is None:
                self._answer(HTTPStatus.OK, {"status": "ok"})
            else:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"status": otherwise, "reason": reason})

        def _answer(self, status: HTTPStatus, body: dict[str, str]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            """Probes come every few seconds and are no news."""

    return Handler
