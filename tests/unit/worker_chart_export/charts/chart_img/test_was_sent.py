"""A call without a response stays counted only if it may have reached the server."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from tests.support.charts.chart_img_samples import account
from tests.support.fakes import chart_request
from worker_chart_export.charts.chart_img.client import ChartApi, NoAnswer

TUNNEL = b"HTTP/1.1 200 OK\r\n\r\n"
REFUSAL = b"HTTP/1.1 502 No\r\n\r\n"
BEHIND = "https://charts.invalid"


class Server:
    """Send the next text after each receive, on each connection, then close it."""

    def __init__(self, *sayings, tls=None):
        self._sayings, self._tls = sayings, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.got = []

    @property
    def url(self):
        """Return its address."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), contextlib.ExitStack() as closing:
            closing.enter_context(connection)
            for saying in self._sayings:
                connection.recv(65536)
                connection.sendall(saying)
            if self._tls:
                connection = closing.enter_context(self._tls.wrap_socket(connection, server_side=True))
            self.got.append(connection.recv(65536))

    def close(self):
        """End all threads."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def serve():
    """Start servers."""
    with contextlib.ExitStack() as servers:
        yield lambda *sayings, tls=None: servers.enter_context(contextlib.closing(Server(*sayings, tls=tls)))


def _was_sent(base_url):
    with contextlib.closing(ChartApi(base_url=base_url, connections=1, max_png_bytes=262144)) as api:
        with pytest.raises(NoAnswer) as caught:
            api.post(account(), chart_request())
        return caught.value.sent


def test_a_server_that_took_the_request_and_closed_may_have_processed_it(serve):
    """A server that took the request and closed the connection may have processed it."""
    server = serve()
    assert _was_sent(server.url)
    assert server.got[0].startswith(b"POST")


def test_a_server_behind_a_proxy_may_have_got_the_request(serve, monkeypatch):
    """A server behind a proxy may have got the request, although the error names the proxy."""
    server = serve()
    monkeypatch.setenv("HTTP_PROXY", server.url)
    assert _was_sent("http://charts.invalid")
    assert server.got[0].startswith(b"POST")


def test_a_server_behind_a_tunnel_may_have_got_the_request(serve, monkeypatch, tls):
    """A server behind a tunnel with TLS may have got the request."""
    server = serve(TUNNEL, tls=tls)
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    assert _was_sent("https://127.0.0.1:1")
    assert server.got[0].startswith(b"POST")


def test_no_server_listens():
    """When no server listens nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert not _was_sent(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("sayings", [(), (b"no TLS at all\r\n",)], ids=["hangs up", "plain"])
def test_a_handshake_that_fails_sends_nothing(serve, sayings):
    """A handshake that fails sends nothing, because the request comes after it."""
    assert not _was_sent(serve(*sayings).url.replace("http:", "https:"))


def test_an_untrusted_server_gets_nothing(serve, monkeypatch, tls):
    """A server with an untrusted certificate gets no request and no key."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name)
    assert not _was_sent(serve(tls=tls).url.replace("http:", "https:"))


@pytest.mark.parametrize("sayings", [(), (REFUSAL,), (TUNNEL,), (TUNNEL, b"no TLS at all\r\n")])
def test_a_broken_tunnel_passes_nothing_on(serve, monkeypatch, sayings):
    """A proxy that is silent, refuses, or can't reach the server passes nothing on."""
    monkeypatch.setenv("HTTPS_PROXY", serve(*sayings).url)
    assert not _was_sent(BEHIND)


def test_a_template_that_is_no_valid_json_is_not_sent(serve):
    """A template that can't be written as JSON, such as one with a lone surrogate, is not sent."""
    server = serve()
    with contextlib.closing(ChartApi(base_url=server.url, connections=1, max_png_bytes=262144)) as api:
        request = chart_request(payload={"symbol": "\ud800"})
        with pytest.raises(NoAnswer) as caught:
            api.post(account(), request)
    assert (caught.value.sent, server.got) == (False, [])
