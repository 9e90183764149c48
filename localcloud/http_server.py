"""A small threaded HTTP/1.1 server: keep-alive, one send per response, counted calls, faults."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import socket
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from localcloud.faults import Fault, check_fault
from localcloud.http_requests import read_body, split_target
from localcloud.service import Service
from localcloud.unserved import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BACKLOG = 256
_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
# Some clients refuse status lines of a few kilobytes; a phrase of the caller's own words could be as long.
_MAX_PHRASE_CHARACTERS = 300
# Interim responses: `100 Continue` that nobody asked for, and `103 Early Hints` with a header.
_INTERIM = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n")
_TRICKLED_PIECES = 20
_ERRORS = frozenset(status.value for status in HTTPStatus if status.value >= HTTPStatus.BAD_REQUEST)

# How requests of other protocols begin -> the protocol, and what to use instead.
_OTHER_PROTOCOLS = {
    "PRI * HTTP/2": ("HTTP/2", "use HTTP/1.1, gRPC clients of Cloud Storage the JSON API"),
    "\x16\x03": ("TLS", "use an address with http://"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """An HTTP request.

    Attributes:
        method: GET, POST, ...
        path: The path as sent, still percent-encoded.
        query: Decoded query parameters; the last of a name wins.
        headers: Headers by lower-case name.
        body: The whole body.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """An HTTP response. `interim` and `trickle_seconds` are those of `Fault`.

    Attributes:
        phrase: The text after the status in the first line; empty = the usual one.
    """

    status: int = 200
    phrase: str = ""
    body: bytes = b""
    content_type: str = "application/json; charset=UTF-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    interim: int = 0
    trickle_seconds: float = 0.0

    def raw(self, *, with_body: bool = True) -> bytes:
        """Return the response as it is sent."""
        headers = {
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status} {_one_line(self.phrase) or _PHRASES.get(self.status, 'Error')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        # UTF-8, as Google's service sends a file name in `Content-Disposition`.
        interim = b"".join(_INTERIM[number % len(_INTERIM)] for number in range(self.interim))
        head = interim + "\r\n".join(lines).encode() + b"\r\n\r\n"
        return head + self.body if with_body else head


def _one_line(text: str) -> str:
    """Return `text` as printable ASCII: what comes from a client could otherwise end the line."""
    return "".join(one if " " <= one <= "~" else "?" for one in text[:_MAX_PHRASE_CHARACTERS])


class ConnectionDropped(Exception):
    """Close the connection without a response."""


def json_response(value: Any, status: int = 200) -> Response:
    """Return a response with `value` as JSON."""
    return Response(status=status, body=json.dumps(value).encode())


class _Server(ThreadingHTTPServer):
    """The listener. It keeps its open connections, so that `stop` can cut them off."""

    request_queue_size = _BACKLOG
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, service: HttpService) -> None:
        self.service = service
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:  # e.g. no file descriptors: the base class would try again without a pause
            time.sleep(0.1)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors of this code on stderr; ignore clients that closed the connection."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def serve(self) -> None:
        """Accept connections until the service stops. `wake` ends the wait for the next one."""
        while not self.service.stopping.is_set():
            self.handle_request()

    def wake(self) -> None:
        """Connect once, so that `serve` stops waiting. This works on every system and needs no polling."""
        with contextlib.suppress(OSError):  # refused: then no thread is waiting
            socket.create_connection(("127.0.0.1", self.server_port), timeout=1).close()

    def cut_off(self) -> None:
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):  # closed by its own thread meanwhile
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def parse_request(self) -> bool:
        """Route every method to one handler."""
        parsed = super().parse_request()
        if parsed:
            setattr(self, f"do_{self.command}", self._serve)
        return parsed

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: calls are counted instead."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no HTTP/1.1. Its sender may not understand the answer, so it is reported."""
        for start, (name, hint) in _OTHER_PROTOCOLS.items():
            if self.requestline.startswith(start):
                service = self.server.service
                service.refusals.add(service.name, name, refusal(name, {name: hint}), call="a request")
        super().send_error(code, message, explain)

    def _serve(self) -> None:
        try:
            request = self._read()
        except ValueError as error:
            # What follows on the connection may belong to this request, so nothing more is read from it. A
            # client that is not told so would send its next request over it.
            self.close_connection = True
            response = self.server.service.error_response(HTTPStatus.BAD_REQUEST, str(error))
            self._send(replace(response, headers={**response.headers, "Connection": "close"}))
            return
        try:
            self._send(self._respond(request))
        except ConnectionDropped:
            self.close_connection = True

    def _read(self) -> Request:
        """Read the request.

        Raises:
            ValueError: It is malformed or incomplete.
        """
        headers = _joined(self.headers.items())
        body = read_body(self.headers, self.rfile)
        path, query = split_target(self.path)
        return Request(method=self.command, path=path, query=query, headers=headers, body=body)

    def _respond(self, request: Request) -> Response:
        """Answer; an error of this code is reported on stderr, and its caller gets status 500."""
        try:
            return self.server.service.respond(request)
        except ConnectionDropped:
            raise
        except Exception:  # noqa: BLE001 - without an answer clients would repeat the request for minutes
            self.server.handle_error(self.request, self.client_address)
            message = "The embedded cloud failed; its stderr says why."
            return self.server.service.error_response(HTTPStatus.INTERNAL_SERVER_ERROR, message)

    def _send(self, response: Response) -> None:
        content = response.raw(with_body=self.command != "HEAD")
        # One send: with two packets the second would wait for the client's delayed acknowledgement.
        size = len(content) // _TRICKLED_PIECES + 1 if response.trickle_seconds > 0 else len(content)
        for start in range(0, len(content), size):
            if start and self.server.service.stopping.wait(response.trickle_seconds / _TRICKLED_PIECES):
                raise ConnectionDropped
            self.wfile.write(content[start : start + size])


def _spoiled(response: Response, fault: Fault) -> Response:
    """Return the response with the body that a fault gives it."""
    if fault.inflated_bytes > 0:
        headers = {**response.headers, "Content-Encoding": "gzip"}
        response = replace(response, body=_gzip_of(fault.inflated_bytes), headers=headers)
    if fault.truncate_bytes is not None:
        response = replace(response, body=response.body[: fault.truncate_bytes])
    return response


@lru_cache(maxsize=4)
def _gzip_of(inflated_bytes: int) -> bytes:
    """Return gzip that inflates to so many blanks."""
    packed, left = io.BytesIO(), inflated_bytes
    with gzip.GzipFile(fileobj=packed, mode="wb") as stream:
        while left > 0:
            stream.write(b" " * min(left, 1_000_000))
            left -= 1_000_000
    return packed.getvalue()


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by lower-case name. The values of a repeated one are joined by commas."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        joined[key] = f"{joined[key]},{value}" if key in joined else value
    return joined


class HttpService(Service):
    """A restartable HTTP server. Subclasses identify and answer the requests.

    Attributes:
        methods: The method names that `identify` gives.
    """

    name = "http"
    methods: frozenset[str] = frozenset()
    supported_faults: frozenset[str] = frozenset(
        {"reset", "truncate_bytes", "inflated_bytes", "interim", "trickle_seconds"}
    )

    def identify(self, request: Request) -> str:
        """Return the method name of `request`, as counted."""
        raise NotImplementedError

    def subject(self, request: Request) -> str:
        """Return the text that `Fault.match` compares; called only when faults are armed."""
        raise NotImplementedError

    def answer(self, method: str, request: Request) -> Response:
        """Answer `request`, identified as `method`."""
        raise NotImplementedError

    def check_fault(self, fault: Fault) -> None:
        """Refuse faults with an unknown method, status or kind."""
        check_fault(fault, methods=self.methods, supported_faults=self.supported_faults)
        if fault.error is not None and fault.error not in _ERRORS:
            raise ValueError(f"{fault.error!r} is no HTTP error status")

    @property
    def url(self) -> str:
        """Return `http://host:port`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start serving; see `Service.start`."""
        if self._server is not None:
            return
        self.stopping = threading.Event()
        self._server = _Server(self.port, self)
        self.port = self._server.server_address[1]
        name = f"localcloud-{self.name}"
        self._thread = threading.Thread(target=self._server.serve, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cut off every connection; see `Service.stop`."""
        if self._server is None:
            return
        self.stopping.set()
        self._server.wake()
        self._thread.join()
        self._server.server_close()
        self._server.cut_off()
        self._server = None

    def respond(self, request: Request) -> Response:
        """Answer `request`, or apply its fault if one fires.

        Raises:
            ConnectionDropped: The fault closes the connection without a response.
        """
        method = self.identify(request)
        self.calls.add(method)
        fault = self.faults.take(method, self.subject(request)) if self.faults.armed else None
        return self._run_faulty(fault, method, request) if fault else self.answer(method, request)

    def _run_faulty(self, fault: Fault, method: str, request: Request) -> Response:
        response = _spoiled(self._faulty_answer(fault, method, request), fault)
        return replace(response, interim=fault.interim, trickle_seconds=fault.trickle_seconds)

    def _faulty_answer(self, fault: Fault, method: str, request: Request) -> Response:
        refusal = None if fault.after_effect else self.fail_as(fault)
        if refusal:
            return refusal
        if fault.before:
            fault.before(request)
        response = self.scripted(fault, request) or self.answer(method, request)
        return (self.fail_as(fault) if fault.after_effect else None) or response

    def scripted(self, fault: Fault, request: Request) -> Response | None:  # noqa: ARG002 - for sub-classes
        """Return the scripted response that a fault names, if any."""
        return None

    def fail_as(self, fault: Fault) -> Response | None:
        """Wait for the delay of `fault`. Return its error, if it has one.

        Raises:
            ConnectionDropped: The fault resets the connection, or the service stops meanwhile.
        """
        if fault.delay_seconds > 0 and self.stopping.wait(fault.delay_seconds):
            raise ConnectionDropped
        if fault.reset:
            raise ConnectionDropped
        return None if fault.error is None else self.error_response(int(fault.error), fault.message)

    def error_response(self, status: int, message: str) -> Response:
        """Return an error in the service's own format."""
        return json_response({"message": message}, status)
