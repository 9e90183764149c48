"""`real` mode against the stand-in Chart-IMG, and against servers that misbehave on the wire."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import RetryCallState

from localcloud import Fault
from tests.unit.doubles import budget_of, chart_request, png_bytes
from worker_chart_export.charts import chart_img
from worker_chart_export.charts.chart_img import Account, ChartImgProvider, api_words
from worker_chart_export.errors import (
    ChartApiFailed,
    ChartApiLimitExceeded,
    ChartTooLarge,
    Interrupted,
    StepTimedOut,
)

KEY = "s3cret-key-123"


@contextlib.contextmanager
def _provider(url, *, key=KEY, max_png_bytes=262144):
    provider = ChartImgProvider(
        base_url=url,
        account=Account(account_id="acc-1", api_key=key),
        max_png_bytes=max_png_bytes,
        connections=4,
    )
    with contextlib.closing(provider):
        yield provider


@pytest.fixture
def provider(cloud):
    """The provider on the stand-in."""
    with _provider(cloud.chart_img.url) as made:
        yield made


@pytest.fixture
def _no_pauses(monkeypatch):
    """Retries follow at once."""
    monkeypatch.setattr(chart_img, "_pause_seconds", lambda _state: 0.0)


def _answer(cloud, name, *, times=None):
    cloud.chart_img.faults.add(Fault(answer=name, times=times))


def _calls(cloud):
    return cloud.chart_img.calls["advanced-chart"]


class TestAnswers:
    """What Chart-IMG may answer, and what becomes of it."""

    def test_a_chart_is_given_with_its_account(self, provider, cloud):
        """The key goes in its header, the template's body as it is."""
        image = provider.chart(chart_request(width=640, height=400, theme="dark"))
        assert (image.provider, image.meta) == ("chart-img", {"accountId": "acc-1"})
        (call,) = cloud.chart_img.requests
        assert call.key == KEY
        assert call.body == {
            "symbol": "NYSE:IBM",
            "interval": "1D",
            "timezone": "Etc/UTC",
            "width": 640,
            "height": 400,
            "theme": "dark",
        }

    @pytest.mark.usefixtures("_no_pauses")
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            ("bad_request", "400: Invalid JSON"),
            ("invalid_request", "401: Invalid Request"),
            ("forbidden", "403: Forbidden"),
            ("over_resolution", "403: Exceed Max Usage Resolution Limit"),
            ("over_parameters", "403: Exceed Max Usage Parameter Limit"),
            ("not_found", "404: Not Found"),
            ("session_disconnected", "409: Session Disconnected"),
            ("invalid_fields", "422: interval: Invalid value"),
            ("invalid_symbol", "422: Invalid Symbol"),
            ("invalid_interval", "422: Invalid Interval"),
        ],
    )
    def test_an_answer_that_asking_again_won_t_change_is_final(self, provider, cloud, answer, words):
        """One call, and the API's own words in the error."""
        _answer(cloud, answer)
        with pytest.raises(ChartApiFailed, match=rf"^Chart-IMG answered {words}") as caught:
            provider.chart(chart_request())
        assert _calls(cloud) == 1
        assert caught.value.details["httpStatus"] == int(words[:3])

    @pytest.mark.usefixtures("_no_pauses")
    @pytest.mark.parametrize(
        "answer",
        ["server_error", "bad_gateway", "unavailable", "timeout", "gateway_timeout"]
        + ["html", "truncated", "wrong_size", "empty"],
    )
    def test_trouble_is_tried_six_times(self, provider, cloud, answer):
        """Then it is that request's failure."""
        _answer(cloud, answer)
        with pytest.raises(ChartApiFailed):
            provider.chart(chart_request())
        assert _calls(cloud) == 6

    @pytest.mark.usefixtures("_no_pauses")
    @pytest.mark.parametrize("answer", ["server_error", "bad_gateway", "truncated", "wrong_size", "html"])
    def test_trouble_that_passes_is_forgotten(self, provider, cloud, answer):
        """The sixth attempt counts as the first."""
        _answer(cloud, answer, times=5)
        assert provider.chart(chart_request()).png.startswith(b"\x89PNG")

    @pytest.mark.usefixtures("_no_pauses")
    def test_a_connection_cut_off_is_trouble(self, provider, cloud):
        """The error says what happened on the wire."""
        cloud.chart_img.faults.add(Fault(reset=True))
        with pytest.raises(ChartApiFailed, match=r"^Chart-IMG did not answer: RemoteProtocolError"):
            provider.chart(chart_request())
        assert _calls(cloud) == 6

    @pytest.mark.usefixtures("_no_pauses")
    def test_nobody_listening_is_trouble(self, provider, cloud):
        """Not an outage of ours: the request fails."""
        cloud.chart_img.stop()
        with pytest.raises(ChartApiFailed, match=r"ConnectError"):
            provider.chart(chart_request())

    @pytest.mark.usefixtures("_no_pauses")
    def test_asking_too_often_is_no_attempt(self, provider, cloud):
        """Ten rate 429s, then five failures, then the chart: still within six attempts."""
        _answer(cloud, "too_many_requests", times=10)
        _answer(cloud, "server_error", times=5)
        assert provider.chart(chart_request()).provider == "chart-img"
        assert _calls(cloud) == 16

    def test_asking_too_often_for_ever_ends_with_the_step_s_time(self, provider, cloud):
        """As a timeout of the step."""
        _answer(cloud, "too_many_requests")
        with pytest.raises(StepTimedOut):
            provider.chart(chart_request(budget=budget_of(0.3)))

    @pytest.mark.parametrize("answer", ["limit_exceeded", "limit_exceeded_200"])
    def test_an_account_used_up_has_its_own_error(self, provider, cloud, answer, log_lines):
        """Whatever the status it is said under; asking again is no use."""
        _answer(cloud, answer)
        with pytest.raises(ChartApiLimitExceeded, match=r"used up for today"):
            provider.chart(chart_request())
        assert _calls(cloud) == 1
        assert "chart_api_limit_exceeded" in [line["event"] for line in log_lines()]

    def test_a_body_too_large_is_given_up(self, provider, cloud):
        """Unread beyond the bound, and not paid for six times."""
        _answer(cloud, "too_large")
        with pytest.raises(ChartTooLarge):
            provider.chart(chart_request())
        assert _calls(cloud) == 1

    def test_a_picture_larger_than_readers_take_is_given_up(self, cloud):
        """The next one would be no smaller."""
        with _provider(cloud.chart_img.url, max_png_bytes=1024) as provider, pytest.raises(ChartTooLarge):
            provider.chart(chart_request(width=2048, height=1920))
        assert _calls(cloud) == 1

    def test_each_call_is_logged_with_its_status(self, provider, cloud, log_lines):
        """And its outcome."""
        _answer(cloud, "forbidden", times=1)
        with pytest.raises(ChartApiFailed):
            provider.chart(chart_request())
        provider.chart(chart_request())
        told = [
            (line["event"], line["httpStatus"], line["outcome"], line["accountId"]) for line in log_lines()
        ]
        assert told == [
            ("chart_api_call_finished", 403, "CHART_API_FAILED", "acc-1"),
            ("chart_api_call_finished", 200, "ok", "acc-1"),
        ]


class TestTime:
    """The step's budget bounds everything."""

    def test_nothing_is_asked_after_the_time(self, provider, cloud):
        """Calls cost money."""
        with pytest.raises(StepTimedOut):
            provider.chart(chart_request(budget=budget_of(0)))
        assert _calls(cloud) == 0

    def test_a_silent_server_is_left_at_the_deadline(self, provider, cloud):
        """The read timeout is never longer than the step."""
        cloud.chart_img.faults.add(Fault(delay_seconds=20))
        started = time.monotonic()
        with pytest.raises(StepTimedOut):
            provider.chart(chart_request(budget=budget_of(0.5)))
        assert time.monotonic() - started < 5

    def test_a_slow_drip_is_left_at_the_deadline(self):
        """Each byte comes in time, the whole never."""
        with _raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", drip=b"x") as url:
            started = time.monotonic()
            with _provider(url) as provider, pytest.raises(StepTimedOut):
                provider.chart(chart_request(budget=budget_of(0.5)))
            assert time.monotonic() - started < 5

    def test_a_stop_ends_the_pause_between_attempts(self, provider, cloud, monkeypatch):
        """At once."""
        monkeypatch.setattr(chart_img, "_pause_seconds", lambda _state: 60.0)
        _answer(cloud, "server_error")
        budget = budget_of(100)
        asked = threading.Timer(0.0, lambda: (_wait_for_call(cloud), budget.stop(Interrupted("stop"))))
        asked.start()
        started = time.monotonic()
        with pytest.raises(Interrupted):
            provider.chart(chart_request(budget=budget))
        asked.join()
        assert time.monotonic() - started < 10

    @pytest.mark.parametrize(("length", "drip"), [(b"Content-Length: 100000\r\n", b"x"), (b"", b"")])
    def test_a_stop_during_an_answer_is_logged_as_that(self, log_lines, length, drip):
        """Not as a call that went well, nor as one that failed."""
        budget = budget_of(30)
        head = b"HTTP/1.1 200 OK\r\n%s\r\n" % length
        server = _raw_server(head, drip=drip, on_request=lambda: budget.stop(Interrupted("stop")))
        with server as url, _provider(url) as provider, pytest.raises(Interrupted):
            provider.chart(chart_request(budget=budget))
        (line,) = log_lines()
        assert line["outcome"] == "stopped"

    @pytest.mark.parametrize("attempt", [1, 2, 3, 4, 5, 6])
    @pytest.mark.parametrize("rate_limited", [True, False])
    def test_pauses_are_between_half_a_second_and_eight(self, attempt, rate_limited):
        """About a second after a rate 429, whatever the number of attempts."""
        kind = chart_img._TooFast if rate_limited else chart_img._Unusable
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = attempt
        state.set_exception((kind, kind("m", again=True), None))  # type: ignore[arg-type]
        pauses = [chart_img._pause_seconds(state) for _ in range(50)]
        assert min(pauses) >= 0.5
        assert max(pauses) <= (1.5 if rate_limited else min(8.0, 2.0**attempt))


def _wait_for_call(cloud):
    assert cloud.chart_img.calls.wait_for("advanced-chart", 1, timeout_seconds=10)


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


@contextlib.contextmanager
def _echo_server(status):
    """A server whose error quotes the key it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"message": f"Invalid API key: {self.headers['x-api-key']}"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestWire:
    """Answers that no good server gives."""

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
    def test_a_broken_answer_is_a_failure_of_the_request(self, head):
        """Never an error of another kind, which would leave the step RUNNING."""
        with _raw_server(head) as url, _provider(url) as provider, pytest.raises(ChartApiFailed):
            provider.chart(chart_request())

    def test_a_redirect_is_not_followed(self):
        """The key goes to nobody else."""
        head = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        refused = pytest.raises(ChartApiFailed, match=r"answered 302")
        with _raw_server(head) as url, _provider(url) as provider, refused:
            provider.chart(chart_request())

    def test_a_compressed_chart_is_read(self):
        """Any proxy may do that."""
        body = gzip.compress(png_bytes())
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        with _raw_server(head + body) as url, _provider(url) as provider:
            assert provider.chart(chart_request()).png == png_bytes()


class TestKey:
    """It never reaches an error, a log line or a repr."""

    @pytest.mark.parametrize("status", [200, 403, 422, 429])
    @pytest.mark.usefixtures("_no_pauses")
    def test_a_key_quoted_by_the_server_is_hidden(self, status, log_lines):
        """In the error's words, details and trace, and in the logs."""
        with (
            _echo_server(status) as url,
            _provider(url) as provider,
            pytest.raises((ChartApiFailed, StepTimedOut)) as caught,
        ):
            provider.chart(chart_request(budget=budget_of(0.5)))
        error = caught.value
        told = [str(error), repr(error.details), *traceback.format_exception(error), repr(log_lines())]
        assert [text for text in told if KEY in text] == []

    def test_an_account_doesn_t_show_its_key(self):
        """Neither in repr nor in str."""
        account = Account(account_id="acc-1", api_key=KEY)
        assert KEY not in f"{account!r} {account}"

    @pytest.mark.parametrize("key", ["", "a b", "abc\n", "schlüssel", "a\x00b"])
    def test_a_key_that_no_header_can_hold_is_refused_unquoted(self, key):
        """The HTTP client would quote it in its own error."""
        with pytest.raises(ValueError, match=r"^api_key of account 'acc-1': expected printable ASCII$"):
            Account(account_id="acc-1", api_key=key)


class TestWords:
    """What an error body says, whatever its shape."""

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"message": "Forbidden"}, "Forbidden"),
            ({"error": "Bad"}, "Bad"),
            ({"errors": [{"msg": "Invalid", "param": "interval"}, {"message": "x"}]}, "interval: Invalid; x"),
            (
                [{"value": 1, "msg": "Invalid value", "param": "width", "location": "body"}],
                "width: Invalid value",
            ),
            ("plain", "plain"),
            ({}, "no message"),
            ([], "no message"),
            ({"message": "a\n b"}, "a b"),
        ],
    )
    def test_known_shapes(self, body, words):
        """`message`, `error`, `errors[]` and a bare array."""
        assert api_words(json.dumps(body).encode()) == words

    @pytest.mark.parametrize(
        ("body", "words"),
        [(b"", "no message"), (b"<h1>502</h1>", "<h1>502</h1>"), (b"\xff\xfe", "\ufffd\ufffd")],
    )
    def test_bodies_that_are_no_json(self, body, words):
        """Their beginning, as text."""
        assert api_words(body) == words

    @given(st.binary(max_size=300) | st.text().map(str.encode))
    def test_any_body_has_words(self, body):
        """At most 300 characters, at least one."""
        assert 1 <= len(api_words(body)) <= 300

    def test_a_body_nested_without_end_has_words(self):
        """The parser's recursion is no crash."""
        assert api_words(b"[" * 100_000).startswith("[[[")
