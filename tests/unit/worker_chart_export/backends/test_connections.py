"""A service is reached directly or through the proxy of the environment."""

from __future__ import annotations

import base64
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.fakes import suspend_machine
from worker_chart_export.backends.connections import CERTIFICATES, open_connections
from worker_chart_export.backends.http import MAX_IDLE_SECONDS


@pytest.fixture(autouse=True)
def _no_certificates_of_this_machine(monkeypatch):
    for name in (*CERTIFICATES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def seen():
    """Return the target and the proxy authorization of each request."""
    return []


@pytest.fixture
def server(seen):
    """Return the URL of a server that answers every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers["Proxy-Authorization"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args):
            """Log nothing."""

    answering = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=answering.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{answering.server_address[1]}"
    answering.shutdown()
    thread.join()
    answering.server_close()


def _get(url):
    with open_connections(url, kept=1) as manager:
        return manager.request("GET", url, retries=False).status


def test_the_url_of_the_service_is_parsed_once(server, seen, monkeypatch):
    """Each call would need a tenth of a millisecond for that; calls to other addresses are made too."""
    with (
        open_connections(f"{server}/v2", kept=1) as manager,
        open_connections("http://other", kept=1) as other,
    ):
        with monkeypatch.context() as patched:
            patched.setattr("urllib3.poolmanager.parse_url", None)
            for _ in range(2):
                assert manager.urlopen("GET", f"{server}/a//../b?c=%2F", redirect=False).status == 204
        assert other.urlopen("GET", f"{server}/d", redirect=False).status == 204
    assert seen == [("/a//../b?c=%2F", None)] * 2 + [("/d", None)]


def test_a_proxy_is_used_with_its_password(server, seen, monkeypatch):
    """The proxy's password is sent; special characters are percent-encoded in the URL."""
    monkeypatch.setenv("HTTP_PROXY", server.replace("http://", "http://quant:p%40ss@"))
    assert _get("http://charts.invalid/a") == 204
    assert seen == [("http://charts.invalid/a", f"Basic {base64.b64encode(b'quant:p@ss').decode()}")]


def test_a_proxy_may_be_named_without_its_scheme(server, seen, monkeypatch):
    """A proxy without scheme gets the scheme `http`."""
    monkeypatch.setenv("HTTP_PROXY", server.removeprefix("http://"))
    assert _get("http://charts.invalid/a") == 204
    assert seen == [("http://charts.invalid/a", None)]


def test_hosts_that_the_environment_excludes_are_reached_directly(server, seen, monkeypatch):
    """Hosts in `NO_PROXY` are reached directly."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert _get(f"{server}/b") == 204
    assert seen == [("/b", None)]


@pytest.mark.parametrize(
    "proxy", ["foo://bar:1", "socks5://127.0.0.1:1", "http://quant:s3cret@bar:99999", "http://q:п@bar:1"]
)
def test_a_proxy_that_can_t_be_used_is_refused(proxy, monkeypatch):
    """An invalid proxy is refused before the first request, without quoting it."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ValueError, match=r"^the environment's proxy can't be used$"):
        open_connections("https://charts.invalid", kept=1)


@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificates_that_can_t_be_read_are_refused(name, tmp_path, monkeypatch):
    """Unreadable certificates are refused; no other certificates replace them."""
    monkeypatch.setenv(name, str(tmp_path / "none.pem"))
    with pytest.raises(OSError, match=r"No such file"):
        open_connections("https://charts.invalid", kept=1)


@pytest.mark.parametrize(
    ("name", "more"), [("SSL_CERT_DIR", ""), ("SSL_CERT_DIR", ":/elsewhere"), ("REQUESTS_CA_BUNDLE", "")]
)
def test_a_folder_of_certificates_is_accepted(tmp_path, monkeypatch, name, more):
    """A folder of certificates is accepted, in the format of OpenSSL and `requests`."""
    monkeypatch.setenv(name, f"{tmp_path}{more}")
    with open_connections("https://charts.invalid", kept=1) as manager:
        assert manager.connection_pool_kw["ssl_context"].get_ca_certs() == []


def test_a_connection_that_was_idle_for_long_is_opened_again(monkeypatch):
    """A connection that was idle for long is opened again, because a gateway may have dropped it."""
    monkeypatch.setattr("worker_chart_export.backends.http.MAX_IDLE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        answering = threads.submit(_answer_one_request_a_connection, listener, connections=2)
        with open_connections(f"http://127.0.0.1:{listener.getsockname()[1]}", kept=1) as manager:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            assert manager.request("GET", url, retries=False).status == 204
            idle = threading.Event()
            idle.wait(0.2)
            assert manager.request("GET", url, retries=False, timeout=5).status == 204
        answering.result(10)


def test_a_connection_from_before_a_suspend_of_the_machine_is_opened_again(monkeypatch):
    """The time of a suspend counts as idle, because a gateway drops the connection meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        listener.settimeout(10)
        answering = threads.submit(_answer_one_request_a_connection, listener, connections=2)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with open_connections(url, kept=1) as manager:
            assert manager.request("GET", url, retries=False).status == 204
            suspend_machine(monkeypatch, MAX_IDLE_SECONDS + 1)
            assert manager.request("GET", url, retries=False, timeout=5).status == 204
        answering.result(10)


def _answer_one_request_a_connection(listener, *, connections):
    """Answer one request per connection; the connections stay open and are not read again."""
    with ExitStack() as opened:
        for _ in range(connections):
            connection = opened.enter_context(listener.accept()[0])
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
