"""One call of Chart-IMG's v2 advanced chart over HTTP. The only owner of the HTTP client.

Protocol: https://doc.chart-img.com, `POST /v2/tradingview/advanced-chart`.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from worker_chart_export.backends.http import cancellable_by, open_connections
from worker_chart_export.charts.chart_img.call_time import CallTimes
from worker_chart_export.charts.chart_img.retry_after import seconds_asked
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.errors import ChartTooLarge, WorkerError
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.charts.chart_img.accounts import Account

PATH = "/v2/tradingview/advanced-chart"
CONNECT_TIMEOUT_SECONDS = 5.0
#: Above the 29 s after which the provider's gateway answers 504 itself.
READ_TIMEOUT_SECONDS = 40.0
#: A whole call. No chart takes so long; bytes that drip in may.
CALL_TIMEOUT_SECONDS = 60.0
MIN_TIMEOUT_SECONDS = 0.1
#: A body beyond this is no chart; reading stops there.
MAX_BODY_BYTES = 8 * 1024 * 1024
#: So much of an error is read; no more is of interest.
MAX_ERROR_BYTES = 64 * 1024
#: Of what is said of a call without an answer.
MAX_WORDS = 500
OK = 200
#: So much is read at once, and a step that ended is noticed in between.
CHUNK_BYTES = 64 * 1024


class NoAnswer(WorkerError):
    """The call ended without an answer that can be read: no connection, a timeout, a reset.

    Args:
        words: Why, without the key.
        sent: Whether the server may have got the request.
        status: The answer's status, when that much came.
    """

    def __init__(self, words: str, *, sent: bool = True, status: int = 0) -> None:
        super().__init__(words)
        self.sent = sent
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back; of an error as much as `MAX_ERROR_BYTES`."""

    status: int
    body: bytes
    retry_after_seconds: float | None


class ChartApi:
    """Calls Chart-IMG. Shared by all threads.

    Args:
        base_url: e.g. `https://api.chart-img.com`.
        connections: How many are kept; as many calls may be under way at once.

    Raises:
        ValueError: The environment's proxy is none that can be used.
        OSError: Its certificates can't be read.
    """

    def __init__(self, *, base_url: str, connections: int) -> None:
        self._url = base_url.rstrip("/") + PATH
        self._http = open_connections(base_url, kept=connections)
        self._times = CallTimes()

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()
        self._times.close()

    def post(self, account: Account, request: ChartRequest) -> Response:
        """Call once.

        Raises:
            NoAnswer: Says why, without the key.
            ChartTooLarge: The body is too large for any chart.
            WorkerError: The step was stopped, or its time is over.
        """
        scope = request.scope
        seconds = max(MIN_TIMEOUT_SECONDS, min(CALL_TIMEOUT_SECONDS, scope.remaining_seconds()))
        call = CancelScope(seconds=seconds, clock=SystemClock())
        too_long = NoAnswer(f"No whole answer within {seconds:.0f} s.")
        with (
            scope.while_running(call.stop),
            self._times.at_most(seconds, partial(call.stop, too_long)),
            cancellable_by(call) as under_way,
        ):
            try:
                with closing(self._ask(account, request, seconds)) as response:
                    return _read(response, scope, call)
            except (HTTPError, ValueError) as error:  # a ValueError: what can't be sent
                scope.check()
                call.check_stopped()
                words = account.without_key(f"{type(error).__name__}: {error}")[:MAX_WORDS]
                # `from None`: a refusal to send the key quotes it, and a traceback would show that.
                raise NoAnswer(words, sent=under_way.was_sent) from None

    def _ask(self, account: Account, request: ChartRequest, seconds: float) -> BaseHTTPResponse:
        """The answer, once its head is there. Nothing is repeated, as each call is counted, nor followed."""
        read_seconds = min(READ_TIMEOUT_SECONDS, seconds)
        return self._http.urlopen(
            "POST",
            self._url,
            body=json.dumps(dict(request.payload), ensure_ascii=False, allow_nan=False).encode(),
            headers={
                "x-api-key": account.api_key.get_secret_value(),
                "content-type": "application/json",
                # A picture is compressed already, and what is small may stand for what fills the memory.
                "accept-encoding": "identity",
            },
            timeout=Timeout(connect=min(CONNECT_TIMEOUT_SECONDS, read_seconds), read=read_seconds),
            retries=False,
            redirect=False,
            preload_content=False,
        )


def _read(response: BaseHTTPResponse, scope: CancelScope, call: CancelScope) -> Response:
    """The answer with its body, within the time of the step and of the call."""
    status, headers = response.status, response.headers
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise NoAnswer("The answer is compressed, though that was not asked for.", status=status)
    body = bytearray()
    while chunk := response.read(CHUNK_BYTES, decode_content=False):
        body += chunk
        scope.check()
        call.check_stopped()
        if len(body) > MAX_BODY_BYTES:
            raise ChartTooLarge(f"Chart-IMG answered with more than {MAX_BODY_BYTES} bytes.")
        if status != OK and len(body) >= MAX_ERROR_BYTES:
            break
    call.check_stopped()  # a body of no announced length just ends when its connection is shut down
    asked = seconds_asked(headers.get("retry-after"), date=headers.get("date"), now=datetime.now(UTC))
    return Response(status=status, body=bytes(body), retry_after_seconds=asked)
