"""A key never reaches an error, its details or trace, a log line or a repr."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from localcloud import Fault
from tests.support.charts.chart_img_samples import KEY, account, provider_on
from tests.support.fakes import chart_request, scope_of
from worker_chart_export.charts.chart_img.account_state import account_states
from worker_chart_export.charts.chart_img.accounts import Account
from worker_chart_export.charts.chart_img.client import ChartApi, NoAnswer
from worker_chart_export.errors import ChartApiFailed, RequestError
from worker_chart_export.observability.logs import configure
from worker_chart_export.timing import SystemClock


@contextlib.contextmanager
def _echo_server(status, message="Invalid API key: {key}"):
    """Run a server whose error quotes the request's key."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            said = message.format(key=self.headers["x-api-key"])
            body = json.dumps([{"msg": said, "param": self.headers["x-api-key"]}]).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Retry-After", self.headers["x-api-key"])
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _texts(error):
    """Return all texts of an error."""
    return [str(error), repr(error), *traceback.format_exception(error), repr(getattr(error, "details", ""))]


@pytest.mark.parametrize("status", [200, 401, 403, 422, 429, 500])
@pytest.mark.usefixtures("_no_pauses")
def test_a_key_quoted_by_the_server_is_hidden(documents, status, log_lines):
    """A key that the server quotes is redacted in the error's message, details and trace and in logs."""
    with (
        _echo_server(status) as url,
        provider_on(url, documents) as provider,
        pytest.raises(RequestError) as caught,
    ):
        provider.chart(chart_request(scope=scope_of(2)))
    texts = [*_texts(caught.value), json.dumps(caught.value.as_step_error().to_dict()), repr(log_lines())]
    assert [text for text in texts if KEY in text] == []
    # Without this the server's message might be missing altogether.
    assert [text for text in texts if "(key)" in text]


@pytest.mark.usefixtures("log_lines")
@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_no_library_prints_the_headers_that_quote_it(documents, level):
    """No library logs the headers that quote the key, not even at level DEBUG."""
    stream = io.StringIO()
    configure(level=level, log_format="json", stream=stream)
    with _echo_server(404) as url, provider_on(url, documents) as provider, pytest.raises(ChartApiFailed):
        provider.chart(chart_request())
    assert "chart_api_call_finished" in stream.getvalue()
    assert KEY not in stream.getvalue()


@pytest.mark.parametrize("before", range(283, 300, 3))
def test_no_part_of_it_is_shown_where_a_message_is_cut(documents, before):
    """A message that is cut in the middle of the key shows no part of it."""
    echo = _echo_server(404, "x" * before + "{key}")
    with echo as url, provider_on(url, documents) as provider, pytest.raises(ChartApiFailed) as caught:
        provider.chart(chart_request())
    assert [text for text in _texts(caught.value) if KEY[:6] in text] == []


def test_accounts_and_their_states_do_not_show_it():
    """Neither repr nor str of an account, or of an object that holds it, shows the key."""
    given = account()
    states = account_states([given], SystemClock())
    assert KEY not in f"{given!r} {given} {states} {states[0]!r} {[{'a': given}]}"


def test_logging_an_account_does_not_show_it(log_lines):
    """No logger with any arguments shows the key of an account."""
    logging.getLogger("elsewhere").error("account %s of %r", account(), {"account": account()})
    assert KEY not in repr(log_lines())


def test_a_trace_through_a_call_does_not_show_it(cloud, log_lines):
    """A trace with its causes does not show the key, although the HTTP client quotes bad headers."""
    cloud.chart_img.faults.add(Fault(reset=True))
    api = ChartApi(base_url=cloud.chart_img.url, connections=1, max_png_bytes=262144)
    with contextlib.closing(api), pytest.raises(NoAnswer) as caught:
        api.post(account(), chart_request())
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    logging.getLogger("elsewhere").error("failed", exc_info=caught.value)
    assert [text for text in [*_texts(caught.value), repr(log_lines())] if KEY in text] == []


@pytest.mark.parametrize("key", ["", "a b", "abc\n", "schlüssel", "a\x00b"])
def test_a_key_that_no_header_can_hold_is_refused_unquoted(key):
    """A key that is no valid header is refused without quoting it."""
    with pytest.raises(ValueError, match=r"expected printable ASCII") as caught:
        Account(id="acc-1", api_key=SecretStr(key))
    assert not key or key not in str(caught.value)
