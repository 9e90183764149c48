"""`/livez` and `/readyz`."""

from __future__ import annotations

import http.client
import json
import socket
import struct

import pytest

from daemon.health import HealthServer


@pytest.fixture
def served():
    """A server on a free port whose answers the test sets."""
    state = {"dead": None, "reason": None}

    def why_not_ready():
        if isinstance(state["reason"], Exception):
            raise state["reason"]
        return state["reason"]

    server = HealthServer(
        host="127.0.0.1", port=0, why_dead=lambda: state["dead"], why_not_ready=why_not_ready
    )
    server.start()
    yield server.port, state
    server.stop()


def _ask(port, path, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_daemon_that_runs_is_alive(served):
    """Ready or not."""
    port, state = served
    state["reason"] = "draining"
    assert _ask(port, "/livez") == (200, b'{"status": "ok"}')


def test_a_daemon_that_is_dead_says_why(served):
    """503 has it restarted; readiness is another question."""
    port, state = served
    state["dead"] = "loop main is silent"
    status, content = _ask(port, "/livez")
    assert (status, json.loads(content)) == (503, {"status": "not alive", "reason": "loop main is silent"})
    assert _ask(port, "/readyz")[0] == 200


@pytest.mark.parametrize(
    ("reason", "status", "body"),
    [(None, 200, {"status": "ok"}), ("draining", 503, {"status": "not ready", "reason": "draining"})],
)
def test_readiness_says_why_not(served, reason, status, body):
    """503 takes it out of a load balancer."""
    port, state = served
    state["reason"] = reason
    answered, content = _ask(port, "/readyz")
    assert (answered, json.loads(content)) == (status, body)


def test_a_query_is_passed_over(served):
    """Some probes add one."""
    assert _ask(served[0], "/livez?x=1%")[0] == 200


@pytest.mark.parametrize("path", ["/", "/livez/", "/metricsx", "/?x=/livez"])
def test_other_paths_are_not_found(served, path):
    """There is nothing else here."""
    assert _ask(served[0], path)[0] == 404


def test_other_methods_are_refused(served, capfd):
    """Silently."""
    assert _ask(served[0], "/livez", "POST")[0] == 501
    assert capfd.readouterr() == ("", "")


def test_a_probe_that_goes_away_leaves_no_trace(served, capfd):
    """The base class would print one to stderr, where only our JSON lines may be."""
    port, _ = served
    for request in (b"", b"GET /livez HTTP/1.1\r\nX: " + b"y" * 500, b"\xff\xfe\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request)
    assert _ask(port, "/livez")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_an_error_of_our_own_is_a_log_line(served, capfd, log_lines):
    """And the server goes on."""
    port, state = served
    state["reason"] = RuntimeError("mistake")
    with pytest.raises((http.client.HTTPException, OSError)):
        _ask(port, "/readyz")
    assert _ask(port, "/livez")[0] == 200
    (line,) = log_lines()
    assert (line["event"], "RuntimeError: mistake" in line["exception"]) == ("internal_error", True)
    assert capfd.readouterr() == ("", "")


def test_a_busy_port_is_an_error(served):
    """At once, so that the daemon can say which."""
    with pytest.raises(OSError, match=r"in use"):
        HealthServer(host="127.0.0.1", port=served[0], why_dead=lambda: None, why_not_ready=lambda: None)


def test_after_the_stop_nobody_listens():
    """The port is free again."""
    server = HealthServer(host="127.0.0.1", port=0, why_dead=lambda: None, why_not_ready=lambda: None)
    server.start()
    server.stop()
    with pytest.raises(OSError, match=r"refused"):
        _ask(server.port, "/livez")
