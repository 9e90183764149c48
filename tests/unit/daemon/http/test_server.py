"""`/livez`, `/readyz` and `/metrics`."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
from contextlib import suppress
from http import HTTPStatus

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_metrics

from daemon.http import server as http_server
from daemon.http.probes import health_routes
from daemon.http.server import HealthServer, Response
from daemon.lifecycle.liveness import HealthReport, readiness


@pytest.fixture
def served():
    """Run a server on a free port whose responses the test sets."""
    state = {"dead": None, "reason": None, "parts": {"main": "ok"}}

    def ready():
        if isinstance(state["reason"], Exception):
            raise state["reason"]
        return HealthReport(parts=state["parts"], reason=state["reason"])

    routes = health_routes(
        liveness=lambda: HealthReport(parts=state["parts"], reason=state["dead"]), readiness=ready
    )
    server = HealthServer(host="127.0.0.1", port=0, routes=routes)
    server.start()
    yield server.port, state
    server.stop()


def _answer(port, path, method="GET", host="127.0.0.1", **headers):
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def _ask(port, path, method="GET"):
    answer, content = _answer(port, path, method)
    return answer.status, content


def test_a_daemon_that_runs_is_alive(served):
    """/livez of a running daemon is 200, ready or not, and names its loops."""
    port, state = served
    state["reason"] = "draining"
    assert _ask(port, "/livez") == (200, b'{"status": "ok", "parts": {"main": "ok"}}')


def test_a_dead_daemon_gives_the_reason(served):
    """/livez of a dead daemon is 503 with the reason, so that it is restarted."""
    port, state = served
    state["dead"] = "loop main is silent"
    state["parts"] = {"main": "silent", "rescue": "ok"}
    status, content = _ask(port, "/livez")
    body = {"status": "not alive", "reason": "loop main is silent", "parts": state["parts"]}
    assert (status, json.loads(content)) == (503, body)
    assert _ask(port, "/readyz")[0] == 200


@pytest.mark.parametrize(
    ("reason", "status", "body"),
    [(None, 200, {"status": "ok"}), ("draining", 503, {"status": "not ready", "reason": "draining"})],
)
def test_readiness_gives_the_reason(served, reason, status, body):
    """/readyz of a daemon that is not ready is 503 with the reason."""
    port, state = served
    state["reason"] = reason
    answered, content = _ask(port, "/readyz")
    assert (answered, json.loads(content)) == (status, {**body, "parts": state["parts"]})


@pytest.mark.parametrize(
    ("facts", "parts", "reason"),
    [
        ({}, {}, None),
        ({"stream_is_open": False}, {"stream": "closed"}, "no stream is open"),
        ({"is_draining": True}, {"drain": "draining"}, "draining"),
        (
            {"pauses": {"firestore": "firestore is unavailable: x"}},
            {"intake": "paused: firestore is unavailable: x"},
            "intake is paused: firestore is unavailable: x",
        ),
        (
            {"is_draining": True, "stream_is_open": False, "pauses": {"firestore": "x", "storage": "y"}},
            {"stream": "closed", "drain": "draining", "intake": "paused: x; y"},
            "draining",
        ),
        (
            {"stream_is_open": False, "pauses": {"storage": "x"}},
            {"stream": "closed", "intake": "paused: x"},
            "intake is paused: x",
        ),
    ],
)
def test_each_part_that_is_unwell_is_named(facts, parts, reason):
    """Every unhealthy part is named, and the first one is the reason."""
    well = {"is_draining": False, "stream_is_open": True, "pauses": {}}
    found = readiness(**{**well, **facts})
    assert found.parts == {"stream": "ok", "drain": "ok", "intake": "ok"} | parts
    assert found.reason == reason


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/nowhere"])
def test_a_head_is_answered_like_a_get_without_the_content(served, path):
    """HEAD gets the response of GET without the content, because some probes use it."""
    got, content = _answer(served[0], path)
    head, nothing = _answer(served[0], path, "HEAD")
    assert (head.status, nothing) == (got.status, b"")
    assert head.getheader("Content-Type") == got.getheader("Content-Type")
    assert int(head.getheader("Content-Length")) > 0
    assert int(got.getheader("Content-Length")) == len(content)


@pytest.mark.parametrize(
    ("path", "method"), [("/livez", "GET"), ("/metrics", "HEAD"), ("/nowhere", "GET"), ("/livez", "POST")]
)
def test_no_answer_is_stored_or_guessed_at(served, path, method):
    """Responses are not stored or sniffed and do not name the Python version."""
    answer, _ = _answer(served[0], path, method)
    assert answer.getheader("Cache-Control") == "no-store"
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.getheader("Content-Security-Policy") == "default-src 'none'; frame-ancestors 'none'"
    assert answer.getheader("Referrer-Policy") == "no-referrer"
    assert answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"
    assert "Python" not in answer.getheader("Server")


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("", "text/plain; version=", plain_metrics),
        ("text/plain; version=none", "text/plain; version=", plain_metrics),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", open_metrics),
    ],
)
def test_metrics_come_in_the_requested_format(served, accept, content_type, parse):
    """/metrics uses the requested format: OpenMetrics for Prometheus, plain text for browsers."""
    answer, content = _answer(served[0], "/metrics", Accept=accept)
    assert answer.status == 200
    assert answer.getheader("Content-Type").startswith(content_type)
    assert "chart_export_ready" in {family.name for family in parse(content.decode())}


def test_a_query_is_ignored(served):
    """A query in the path is ignored, because some probes add one."""
    assert _ask(served[0], "/livez?x=1%")[0] == 200


@pytest.mark.parametrize("path", ["/", "/livez/", "/metricsx", "/?x=/livez"])
def test_other_paths_are_not_found(served, path):
    """Other paths give 404."""
    assert _ask(served[0], path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(served, capfd, method):
    """Other methods are refused without a log line, and the response has the allowed ones."""
    answer, content = _answer(served[0], "/livez", method)
    assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD")
    assert content == b"Only GET and HEAD are answered here.\n"
    assert _ask(served[0], "/livez", "BREW")[0] == 501
    assert capfd.readouterr() == ("", "")


def test_a_client_that_disconnects_causes_no_output(served, capfd):
    """A client that disconnects causes no output; the base class would print to stderr."""
    port, _ = served
    for request in (b"", b"GET /livez HTTP/1.1\r\nX: " + b"y" * 500, b"\xff\xfe\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request)
    assert _ask(port, "/livez")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_client_that_sends_slowly_is_disconnected(monkeypatch, capfd):
    """A client that sends a byte from time to time is disconnected at its time limit."""
    monkeypatch.setattr(http_server, "MAX_CONNECTION_SECONDS", 0.5)
    server = HealthServer(host="127.0.0.1", port=0, routes={})
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.1) as connection:
        until = time.monotonic() + 10
        with pytest.raises(OSError, match=r"reset|Broken pipe|closed"):  # noqa: PT012 - a send or a receive may notice it
            while time.monotonic() < until:
                connection.sendall(b"G")
                with suppress(TimeoutError):
                    if connection.recv(100) == b"":
                        raise OSError("closed")
    server.stop()
    assert capfd.readouterr() == ("", "")


def test_slow_clients_never_keep_a_probe_out(monkeypatch, capfd):
    """When all connections are taken the oldest is closed, so that a probe always gets through."""
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 3)
    routes = {"/": lambda _request: Response(status=HTTPStatus.OK, content_type="text/plain", content=b"")}
    server = HealthServer(host="127.0.0.1", port=0, routes=routes)
    server.start()
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(3)]
    assert _ask(server.port, "/")[0] == 200
    assert slow[0].recv(1) == b""
    slow[2].sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert slow[2].recv(12) == b"HTTP/1.0 200"
    for connection in slow:
        connection.close()
    server.stop()
    assert capfd.readouterr() == ("", "")


def test_a_hundred_connections_may_wait():
    """A hundred connections may wait to be accepted, else the kernel would drop a probe's SYN."""
    server = HealthServer(host="127.0.0.1", port=0, routes={})
    waiting = [socket.create_connection(("127.0.0.1", server.port), timeout=0.8) for _ in range(100)]
    for connection in waiting:
        connection.close()
    server.start()
    server.stop()


def test_idle_connections_are_closed(monkeypatch, capfd):
    """An idle connection is closed, so that it does not hold a thread."""
    monkeypatch.setattr(http_server, "MAX_CONNECTION_SECONDS", 0.1)
    server = HealthServer(host="127.0.0.1", port=0, routes={})
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        assert connection.recv(1) == b""
    server.stop()
    assert capfd.readouterr() == ("", "")


def test_an_error_of_our_own_is_a_log_line(served, capfd, log_lines):
    """An unexpected error is logged, and the server continues."""
    port, state = served
    state["reason"] = RuntimeError("mistake")
    with pytest.raises((http.client.HTTPException, OSError)):
        _ask(port, "/readyz")
    assert _ask(port, "/livez")[0] == 200
    (line,) = log_lines()
    assert (line["event"], "RuntimeError: mistake" in line["exception"]) == ("internal_error", True)
    assert capfd.readouterr() == ("", "")


def test_a_busy_port_is_an_error(served):
    """A busy port raises an error at once, so that the daemon can name it."""
    with pytest.raises(OSError, match=r"in use"):
        HealthServer(host="127.0.0.1", port=served[0], routes={})


def test_after_the_stop_the_port_is_free():
    """After the stop the port is free again."""
    server = HealthServer(host="127.0.0.1", port=0, routes={})
    server.start()
    server.stop()
    with pytest.raises(OSError, match=r"refused"):
        _ask(server.port, "/livez")


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_ipv6_address_is_listened_on():
    """The server listens on an IPv6 address, as pods of an IPv6 cluster need."""
    alive = HealthReport(parts={}, reason=None)
    server = HealthServer(
        host="::1", port=0, routes=health_routes(liveness=lambda: alive, readiness=lambda: alive)
    )
    server.start()
    try:
        assert _answer(server.port, "/livez", host="::1")[0].status == 200
    finally:
        server.stop()
