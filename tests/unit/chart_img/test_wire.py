"""Answers that no good server gives, byte for byte."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time

import pytest

from tests.unit.chart_img.material import provider_on
from tests.unit.doubles import budget_of, chart_request, png_bytes
from worker_chart_export.errors import ChartApiFailed, Interrupted, StepTimedOut


@contextlib.contextmanager
def _raw_server(head, *, drip=b"", on_request=lambda: None):
    """A server that answers every connection with `head`, then `drip` every 50 ms until it is closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(head)
            on_request()
            while drip and not stopping.wait(0.05):
                connection.sendall(drip)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                thread = threading.Thread(target=serve, args=(connection,))
                threads.append(thread)
                thread.start()

    threads: list[threading.Thread] = []
    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopping.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    ],
)
def test_a_broken_answer_is_a_failure_of_the_request(documents, head):
    """Never an error of another kind, which would leave the step RUNNING."""
    with _raw_server(head) as url, provider_on(url, documents) as provider, pytest.raises(ChartApiFailed):
        provider.chart(chart_request())


def test_a_redirect_is_not_followed(documents):
    """The key goes to nobody else."""
    head = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    refused = pytest.raises(ChartApiFailed, match=r"answered 302")
    with _raw_server(head) as url, provider_on(url, documents) as provider, refused:
        provider.chart(chart_request())


def test_a_compressed_chart_is_read(documents):
    """Any proxy may do that."""
    body = gzip.compress(png_bytes())
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    with _raw_server(head + body) as url, provider_on(url, documents) as provider:
        assert provider.chart(chart_request()).png == png_bytes()


def test_a_slow_drip_is_left_at_the_deadline(documents):
    """Each byte comes in time, the whole never."""
    with _raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", drip=b"x") as url:
        started = time.monotonic()
        with provider_on(url, documents) as provider, pytest.raises(StepTimedOut):
            provider.chart(chart_request(budget=budget_of(0.5)))
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(("length", "drip"), [(b"Content-Length: 100000\r\n", b"x"), (b"", b"")])
def test_a_stop_during_an_answer_is_logged_as_that(documents, log_lines, length, drip):
    """Not as a call that went well, nor as one that failed."""
    budget = budget_of(30)
    head = b"HTTP/1.1 200 OK\r\n%s\r\n" % length
    server = _raw_server(head, drip=drip, on_request=lambda: budget.stop(Interrupted("stop")))
    with server as url, provider_on(url, documents) as provider, pytest.raises(Interrupted):
        provider.chart(chart_request(budget=budget))
    (line,) = log_lines()
    assert line["outcome"] == "stopped"


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize(("header", "least"), [(b"1", 1.0), (b"soon", 0.0)])
def test_a_server_may_ask_to_be_left_alone_for_a_while(documents, monkeypatch, header, least):
    """`Retry-After` reaches the pause."""
    asked = []
    monkeypatch.setattr(
        "worker_chart_export.charts.chart_img.provider._delay_seconds",
        lambda _failed, answer: asked.append(answer.retry_after_seconds) or 0.0,
    )
    head = b"HTTP/1.1 503 Away\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % header
    with _raw_server(head) as url, provider_on(url, documents) as provider, pytest.raises(ChartApiFailed):
        provider.chart(chart_request())
    assert asked == [least or None] * 5
