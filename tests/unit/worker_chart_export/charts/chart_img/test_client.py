"""Broken responses, byte for byte."""

from __future__ import annotations

import contextlib
import gzip
import io
import socket
import threading
import time
import tracemalloc

import pytest

from tests.support.charts.chart_img_samples import KEY, account, provider_on
from tests.support.fakes import chart_request, png_bytes, scope_of
from worker_chart_export.charts.base import PNG_SIGNATURE
from worker_chart_export.charts.chart_img.client import ChartApi, NoAnswer
from worker_chart_export.errors import (
    ChartApiFailed,
    ChartApiLimitExceeded,
    ChartTooLarge,
    Interrupted,
    StepTimedOut,
)
from worker_chart_export.observability.logs import configure


def _head(status, *headers, body=b""):
    # The server closes each connection. Without these words, the next request may still be sent on it.
    lines = [b"HTTP/1.1 " + status, b"Connection: close", *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _receive(connection):
    """Receive a whole request. A close with an unread rest may reset the connection too early."""
    request = b""
    while not request.endswith(b"}") and (part := connection.recv(65536)):
        request += part
    return request


@contextlib.contextmanager
def _raw_server(head, *, drip=b"", on_request=lambda _request: None):
    """Answer every connection with `head`, then send `drip` every 50 ms until it is closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            request = _receive(connection)
            connection.sendall(head)
            on_request(request)
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


@contextlib.contextmanager
def _deaf_server():
    """A listener whose queue is full: no connection to it opens."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


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
    """A broken response is a failed request; another kind of error would leave the step RUNNING."""
    with _raw_server(head) as url, provider_on(url, documents) as provider, pytest.raises(ChartApiFailed):
        provider.chart(chart_request())


def test_an_interim_answer_is_not_the_answer(documents):
    """The chart after `103 Early Hints` is the chart."""
    png = png_bytes()
    head = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + _head(b"200 OK", body=png)
    with _raw_server(head) as url, provider_on(url, documents) as provider:
        assert provider.chart(chart_request()).png == png


def test_a_redirect_is_not_followed(documents):
    """A redirect is not followed, so that no other server gets the key."""
    head = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    refused = pytest.raises(ChartApiFailed, match=r"answered 302")
    with _raw_server(head) as url, provider_on(url, documents) as provider, refused:
        provider.chart(chart_request())


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize(("status", "calls"), [(b"200 OK", 2), (b"401 Unauthorized", 6)])
def test_a_compressed_answer_is_not_decoded(documents, status, calls, log_lines):
    """A compressed response is not decoded: it was not requested and could fill the memory."""
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    tracemalloc.start()
    with (
        _raw_server(_head(status, b"Content-Encoding: gzip", body=bomb)) as url,
        provider_on(url, documents) as provider,
        pytest.raises(ChartApiFailed, match=rf"answered {status[:3].decode()}: The answer is compressed"),
    ):
        provider.chart(chart_request())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * 1024 * 1024
    assert [line["httpStatus"] for line in log_lines()] == [int(status[:3])] * calls


def test_no_compression_is_requested(documents):
    """No compression is requested, because a picture is already compressed."""
    asked = []
    server = _raw_server(_head(b"404 X"), on_request=asked.append)
    with server as url, provider_on(url, documents) as provider, pytest.raises(ChartApiFailed):
        provider.chart(chart_request())
    assert b"accept-encoding: identity\r\n" in asked[0].lower()
    assert asked[0].lower().count(b"accept-encoding") == 1


@pytest.mark.usefixtures("log_lines")
@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_headers_that_can_t_be_parsed_are_not_printed(documents, level):
    """Headers that can't be parsed are not in the error, because they may quote the key."""
    stream = io.StringIO()
    configure(level=level, log_format="json", stream=stream)
    head = _head(b"404 X", b"no colon but " + KEY.encode())
    with _raw_server(head) as url, provider_on(url, documents) as provider, pytest.raises(ChartApiFailed):
        provider.chart(chart_request())
    assert "chart_api_call_finished" in stream.getvalue()
    assert KEY not in stream.getvalue()


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize(
    ("status", "error", "outcomes"),
    [
        (b"401 Unauthorized", ChartApiLimitExceeded, ["bad_key"]),
        (b"404 Not Found", ChartApiFailed, ["refused"]),
        (b"502 Bad Gateway", ChartApiFailed, ["trouble"] * 6),
    ],
)
def test_an_error_of_any_size_is_classified_by_its_status(documents, status, error, outcomes, log_lines):
    """An error response of any size is classified by its status and its first bytes."""
    head = _head(status, body=b"<html>" + b"x" * 9_000_000)
    with _raw_server(head) as url, provider_on(url, documents) as provider, pytest.raises(error):
        provider.chart(chart_request())
    lines = [line for line in log_lines() if line["event"] == "chart_api_call_finished"]
    assert [(line["httpStatus"], line["outcome"]) for line in lines] == [
        (int(status[:3]), outcome) for outcome in outcomes
    ]


class TestSizes:
    """How much of an answer is read."""

    @pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"502 Bad Gateway"])
    def test_little_is_read_of_what_is_no_picture(self, status):
        """8 KiB are read of an answer without a picture, whatever its status."""
        head = _head(status, body=b"[" * 8_000_000)
        with _raw_server(head) as url, _api(url, max_png_bytes=262144) as api:
            assert api.post(account(), chart_request()).body == b"[" * 8192

    def test_a_picture_with_the_status_of_an_error_is_an_error(self):
        """8 KiB are read of a picture whose status is that of an error."""
        head = _head(b"500 X", body=png_bytes(padding=100_000))
        with _raw_server(head) as url, _api(url, max_png_bytes=262144) as api:
            assert len(api.post(account(), chart_request()).body) == 8192

    @pytest.mark.parametrize("most", [1024, 8192, 262_144])
    @pytest.mark.parametrize("has_length", [True, False])
    def test_a_picture_is_read_up_to_the_limit_of_its_readers(self, most, has_length):
        """A picture of the largest size is read whole. Of a larger one nothing is kept."""
        whole = PNG_SIGNATURE + b"x" * (most - len(PNG_SIGNATURE))
        for body, is_allowed in ((whole, True), (whole + b"x", False), (whole + b"x" * 8_000_000, False)):
            head = _head(b"200 OK", body=body) if has_length else _in_one_chunk(body)
            with _raw_server(head) as url, _api(url, max_png_bytes=most) as api:
                if is_allowed:
                    assert api.post(account(), chart_request()).body == whole
                    continue
                tracemalloc.start()
                with pytest.raises(ChartTooLarge, match=rf"more than {most} bytes"):
                    api.post(account(), chart_request())
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                assert peak < 2 * most + 500_000

    @pytest.mark.parametrize("more", [1, 8_000_000])
    def test_what_follows_a_picture_does_not_count(self, more):
        """A picture of the largest size passes, with a little of what follows its end."""
        whole = png_bytes(padding=100_000)
        with (
            _raw_server(_head(b"200 OK", body=whole + b"x" * more)) as url,
            _api(url, max_png_bytes=len(whole)) as api,
        ):
            assert api.post(account(), chart_request()).body == whole + b"x"


def _in_one_chunk(body):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@contextlib.contextmanager
def _api(url, *, max_png_bytes):
    with contextlib.closing(ChartApi(base_url=url, connections=1, max_png_bytes=max_png_bytes)) as api:
        yield api


@pytest.mark.parametrize(
    ("head", "drip"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    ],
    ids=["headers", "body", "body without a length"],
)
@pytest.mark.usefixtures("_no_pauses")
def test_a_call_ends_after_its_time_though_bytes_keep_coming(documents, monkeypatch, head, drip, log_lines):
    """A call ends after its time although bytes keep coming, as a transient failure."""
    monkeypatch.setattr("worker_chart_export.charts.chart_img.client.CALL_TIMEOUT_SECONDS", 0.3)
    started = time.monotonic()
    with (
        _raw_server(head, drip=drip) as url,
        provider_on(url, documents) as provider,
        pytest.raises(ChartApiFailed, match=r"did not answer: No whole answer within"),
    ):
        provider.chart(chart_request())
    assert time.monotonic() - started < 10
    assert [line["outcome"] for line in log_lines()] == ["no_answer"] * 6


def test_headers_that_drip_are_left_at_the_deadline(documents):
    """Headers that arrive slowly, each read in time, end with the deadline."""
    requests: list[bytes] = []
    with (
        _raw_server(b"HTTP/1.1 200 OK\r\n", drip=b"X: y\r\n", on_request=requests.append) as url,
        provider_on(url, documents) as provider,
    ):
        started = time.monotonic()
        with pytest.raises(StepTimedOut):
            provider.chart(chart_request(scope=scope_of(1.5)))  # on a busy machine the call begins late
        assert time.monotonic() - started < 20
    assert len(requests) == 1


def test_a_connection_that_does_not_open_fails_after_five_seconds(monkeypatch):
    """A connection that does not open fails after five seconds, before the read timeout."""
    monkeypatch.setattr("worker_chart_export.charts.chart_img.client.CONNECT_TIMEOUT_SECONDS", 0.2)
    with (
        _deaf_server() as url,
        contextlib.closing(ChartApi(base_url=url, connections=1, max_png_bytes=262144)) as api,
    ):
        started = time.monotonic()
        with pytest.raises(NoAnswer, match=r"^ConnectTimeout") as caught:
            api.post(account(), chart_request())
        assert time.monotonic() - started < 5
        assert not caught.value.sent


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (b"503 Unavailable", r"^Chart-IMG answered 503: Soon$"),
        (b"429 Slow", r"^Chart-IMG answered 429: Soon$"),
    ],
)
@pytest.mark.parametrize("asked", [b"3600", b"Wed, 21 Oct 2099 07:28:00 GMT", b"9" * 400])
def test_a_retry_after_beyond_the_step_s_time_is_not_waited_for(documents, status, error, asked):
    """A `Retry-After` beyond the step's time fails the chart at once with the API's message."""
    head = _head(status, b"Retry-After: " + asked, body=b'{"message": "Soon"}')
    started = time.monotonic()
    with (
        _raw_server(head) as url,
        provider_on(url, documents) as provider,
        pytest.raises(ChartApiFailed, match=error),
    ):
        provider.chart(chart_request())
    assert time.monotonic() - started < 5


def test_a_retry_after_of_more_than_a_minute_is_not_waited_for(documents):
    """A `Retry-After` of more than a minute is not waited for, even if the step has time."""
    head = _head(b"503 Unavailable", b"Retry-After: 61", body=b'{"message": "Soon"}')
    refused = pytest.raises(ChartApiFailed, match=r"answered 503: Soon")
    with _raw_server(head) as url, provider_on(url, documents) as provider, refused:
        provider.chart(chart_request(scope=scope_of(300)))


def test_a_slow_drip_is_left_at_the_deadline(documents):
    """A body that arrives slowly, each byte in time, ends with the deadline."""
    with _raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", drip=b"x") as url:
        started = time.monotonic()
        with provider_on(url, documents) as provider, pytest.raises(StepTimedOut):
            provider.chart(chart_request(scope=scope_of(0.5)))
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(("length", "drip"), [(b"Content-Length: 100000\r\n", b"x"), (b"", b"")])
def test_a_stop_during_an_answer_is_logged_as_that(documents, log_lines, length, drip):
    """A call that is stopped during its response is logged as stopped."""
    scope = scope_of(30)
    head = b"HTTP/1.1 200 OK\r\n%s\r\n" % length
    server = _raw_server(head, drip=drip, on_request=lambda _request: scope.stop(Interrupted("stop")))
    with server as url, provider_on(url, documents) as provider, pytest.raises(Interrupted):
        provider.chart(chart_request(scope=scope))
    (line,) = log_lines()
    assert line["outcome"] == "stopped"


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize(("header", "least"), [(b"1", 1.0), (b"soon", 0.0)])
def test_a_pause_follows_retry_after(documents, monkeypatch, header, least):
    """A pause follows the server's `Retry-After`."""
    asked = []
    monkeypatch.setattr(
        "worker_chart_export.charts.chart_img.attempts.pause_seconds",
        lambda answer, _failures: asked.append(answer.retry_after_seconds) or 0.0,
    )
    head = _head(b"503 Unavailable", b"Retry-After: " + header)
    with _raw_server(head) as url, provider_on(url, documents) as provider, pytest.raises(ChartApiFailed):
        provider.chart(chart_request())
    assert asked == [least or None] * 5
