"""`healthcheck` on the daemon's own server and on others."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import pytest

from daemon.cli.commands.healthcheck import SERVER, NotAlive, ask, command, reachable
from daemon.http.probes import health_routes
from daemon.http.server import HealthServer
from daemon.lifecycle.liveness import HealthReport
from daemon.settings import Settings
from tests.support.process.in_process_commands import run_here

#: Long enough for an immediate response, also on a busy machine.
SOON_SECONDS = 5.0
ALIVE = '{"status": "ok", "parts": {}}'


@contextmanager
def answering(answer, *, every_seconds=0.0):
    """Run a listener that sends this response, also byte by byte, or none; yield its port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, answer, every_seconds, over))
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _serve(server, answer, every_seconds, over):
    callers = []
    while True:
        try:
            caller, _ = server.accept()
        except OSError:
            break
        callers.append(caller)  # without a response the caller waits
        if answer is not None:
            caller.recv(4096)
            _send(caller, answer, every_seconds, over)
            caller.close()
    for caller in callers:
        caller.close()


def _send(caller, answer, every_seconds, over):
    if not every_seconds:
        caller.sendall(answer)
        return
    for byte in answer:
        if over.wait(every_seconds):
            break
        caller.sendall(bytes([byte]))


def http_answer(status, body, server=SERVER):
    """Return a complete HTTP response."""
    signed = f"Server: {server}\r\n" if server else ""
    return f"HTTP/1.1 {status} X\r\n{signed}Content-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize("reason", [None, "loop main is silent"])
def test_the_daemon_s_own_server_is_known_and_believed(reason):
    """The daemon's own server is recognized by its header."""
    routes = health_routes(
        liveness=lambda: HealthReport(parts={}, reason=reason),
        readiness=lambda: HealthReport(parts={}, reason="no"),
    )
    server = HealthServer(host="127.0.0.1", port=0, routes=routes)
    server.start()
    try:
        if reason is None:
            ask("127.0.0.1", server.port)
        else:
            with pytest.raises(NotAlive, match=f"^reports: '{reason}'$"):
                ask("127.0.0.1", server.port)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            http_answer(200, ALIVE, server=None),
            "is not a worker-chart-export daemon: HTTP 200, Server header nothing:",
        ),
        (http_answer(200, ALIVE, server="nginx/1.27"), "Server header 'nginx/1.27'"),
        (http_answer(503, '{"reason": "busy"}', server="gunicorn"), "not a worker-chart-export daemon"),
        (http_answer(200, "<html>hello</html>"), "not a worker-chart-export daemon"),
        (http_answer(200, "[" * 5000), "not a worker-chart-export daemon"),
        (http_answer(404, '{"status": "ok"}'), "HTTP 404"),
        (http_answer(503, '{"reason": "\\u001b[2Jx"}'), r"'\x1b[2Jx'"),
        (b"SSH-2.0-x\r\n", "can't be checked over HTTP"),
        (b"", "can't be "),
    ],
    ids=["unsigned", "other", "other dead", "another site", "deep", "404", "hostile", "ssh", "nothing"],
)
def test_a_listener_that_is_no_daemon_is_reported_in_one_line(answer, text):
    """Any other listener on the port gives its own line and exit code 1."""
    with answering(answer) as port, pytest.raises(NotAlive) as verdict:
        ask("127.0.0.1", port, timeout_seconds=SOON_SECONDS)
    assert text in str(verdict.value)
    assert str(verdict.value).isprintable()


@pytest.mark.parametrize("answer", [None, http_answer(200, ALIVE)], ids=["silence", "byte by byte"])
def test_a_response_that_takes_too_long_is_not_alive(answer):
    """The time limit is for the whole response, also when each byte comes soon enough."""
    with answering(answer, every_seconds=0.1) as port:
        began = time.monotonic()
        with pytest.raises(NotAlive, match=r"^did not answer within 0\.3 s$"):
            ask("127.0.0.1", port, timeout_seconds=0.3)
        took = time.monotonic() - began
    assert took < 0.1 * len(http_answer(200, ALIVE)) / 3


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"HEALTH_PORT": "0"}, "--port"),
        ({"HEALTH_PORT": "many"}, "HEALTH_PORT"),
        ({"HEALTH_PORT": "70000"}, "HEALTH_PORT"),
    ],
)
def test_an_invalid_port_is_exit_2(environment, text):
    """An invalid port gives exit code 2, because the probe is configured wrongly."""
    done = run_here("healthcheck", environment=environment)
    assert done.returncode == 2
    assert text in done.stderr


@pytest.mark.parametrize("host", ["no such host", "a" * 100, "::"])
def test_an_unreachable_host_is_not_alive(host):
    """A host that can't be reached gives exit code 1 and no internal error."""
    with pytest.raises(NotAlive, match=r"^can't be "):
        ask(reachable(host), 1)


def test_the_defaults_are_the_daemon_s_own():
    """The defaults equal the daemon's. They are copied because loading the settings takes too long."""
    fields = Settings.model_fields
    assert command.__defaults__ == (fields["health_host"].default, fields["health_port"].default)
