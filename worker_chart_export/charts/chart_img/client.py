"""Call Chart-IMG's v2 advanced chart over HTTP, limit the time of each call, and log it.

Protocol: https://doc.chart-img.com, `POST /v2/tradingview/advanced-chart`.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from worker_chart_export.backends.call_timer import CallTimer
from worker_chart_export.backends.connections import open_connections
from worker_chart_export.backends.http import MAX_ERROR_BYTES, NO_RETRIES, cancellable_by
from worker_chart_export.charts.base import PNG_SIGNATURE, png_end
from worker_chart_export.charts.chart_img.answers import parse_retry_after
from worker_chart_export.errors import ChartTooLarge, WorkerError
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.observability.observers import notify_call
from worker_chart_export.timing import span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse

    from worker_chart_export.backends.http import CancellableCall
    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.charts.chart_img.accounts import Account
    from worker_chart_export.concurrency.cancel_scope import CancelScope

PATH = "/v2/tradingview/advanced-chart"
HEADERS = {
    "content-type": "application/json",
    # A picture is compressed already, and a small compressed body may decompress to a huge one.
    "accept-encoding": "identity",
}
CONNECT_TIMEOUT_SECONDS = 5.0
#: Above the 29 s after which the provider's gateway itself answers 504.
READ_TIMEOUT_SECONDS = 40.0
#: The limit of a whole call. No chart takes so long, but a body that arrives byte by byte may.
CALL_TIMEOUT_SECONDS = 60.0
MIN_TIMEOUT_SECONDS = 0.1
MAX_MESSAGE_CHARS = 500
#: How much is read at once. The scope is checked after each part.
CHUNK_BYTES = 64 * 1024
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class NoAnswer(WorkerError):
    """The call ended without an answer that can be read: no connection, a timeout, a reset.

    Args:
        message: The reason, without the key.
        sent: The server may have received the request.
        status: The status of the answer, when it was received.
    """

    def __init__(self, message: str, *, sent: bool = True, status: int = 0) -> None:
        super().__init__(message)
        self.sent = sent
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A received answer. A body that is no picture ends after `MAX_ERROR_BYTES`."""

    status: int
    body: bytes
    retry_after_seconds: float | None


class ChartApi:
    """Call Chart-IMG. Shared by all threads.

    Args:
        base_url: e.g. `https://api.chart-img.com`.
        connections: How many connections are kept open. It is also the limit of calls at the same time.
        max_png_bytes: A larger picture is refused without reading it to its end.

    Raises:
        ValueError: The environment names a proxy that can't be used.
        OSError: The certificates can't be read.
    """

    def __init__(self, *, base_url: str, connections: int, max_png_bytes: int) -> None:
        self._url = base_url.rstrip("/") + PATH
        self._max_png_bytes = max_png_bytes
        self._http = open_connections(base_url, kept=connections)
        self._timer = CallTimer()

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()
        self._timer.close()

    def post(self, account: Account, request: ChartRequest) -> Response:
        """Call once. Nothing is repeated, as each call is counted, and no redirect is followed.

        Raises:
            NoAnswer: There is no answer. The message does not show the key.
            ChartTooLarge: The picture has more than `max_png_bytes` bytes.
            WorkerError: The step was stopped, or its time is used up.
        """
        scope = request.call_scope
        seconds = max(MIN_TIMEOUT_SECONDS, min(CALL_TIMEOUT_SECONDS, scope.remaining_seconds()))
        read_seconds = min(READ_TIMEOUT_SECONDS, seconds)
        with (
            cancellable_by(scope) as call,
            self._timer.limit(call, seconds, lambda: NoAnswer(f"No whole answer within {span(seconds)}.")),
        ):
            try:
                with self._http.urlopen(
                    "POST",
                    self._url,
                    body=_encoder.encode(dict(request.payload)).encode(),
                    headers=HEADERS | {"x-api-key": account.api_key.get_secret_value()},
                    timeout=Timeout(connect=min(CONNECT_TIMEOUT_SECONDS, read_seconds), read=read_seconds),
                    retries=NO_RETRIES,
                    redirect=False,
                    preload_content=False,
                ) as response:
                    return self._read(response, scope, call)
            except (HTTPError, ValueError) as error:  # a ValueError means what can't be sent
                scope.check()
                call.check_stopped()
                message = account.without_key(f"{type(error).__name__}: {error}")[:MAX_MESSAGE_CHARS]
                # `from None`: an error about the header quotes the key, and a traceback would show it.
                raise NoAnswer(message, sent=call.was_sent) from None

    def _read(self, response: BaseHTTPResponse, scope: CancelScope, call: CancellableCall) -> Response:
        """Read the body within the time of the step and of the call, and within the limits of its size."""
        status, headers = response.status, response.headers
        if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise NoAnswer("The answer is compressed, but compression was not requested.", status=status)
        body, limit = bytearray(), MAX_ERROR_BYTES
        while chunk := response.read(min(CHUNK_BYTES, limit - len(body)), decode_content=False):
            body += chunk
            scope.check()
            call.check_stopped()
            if status == HTTPStatus.OK and body.startswith(PNG_SIGNATURE):
                limit = self._max_png_bytes + 1  # the byte too many shows that there are more
                if len(body) >= limit and png_end(body) is None:
                    raise ChartTooLarge(
                        f"The PNG has more than {self._max_png_bytes} bytes, which readers refuse.",
                        contentLength=headers.get("content-length"),
                    )
            if len(body) >= limit or response.length_remaining == 0:  # the end is known without another read
                break
        call.check_stopped()  # a body without a length just ends when its connection is shut down
        pause = None
        if (header := headers.get("retry-after")) is not None:
            pause = parse_retry_after(header, date=headers.get("date"), now=datetime.now(UTC))
        return Response(status=status, body=bytes(body), retry_after_seconds=pause)


@dataclass(slots=True)
class CallEnd:
    """How a call ended. The defaults are those of a call that the end of its step has cancelled.

    Attributes:
        status: The HTTP status; 0 = there was no answer.
        outcome: One of `metrics.ANSWERS`.
        message: The API's own message, without the key. Empty when there is a chart.
    """

    status: int = 0
    outcome: str = "stopped"
    message: str = ""


@contextmanager
def logged_call(account_id: str, request: ChartRequest, *, number: int) -> Iterator[CallEnd]:
    """Log and count the call in this context, the chart's `number`-th, and notify the observers."""
    started, end = time.monotonic(), CallEnd()
    try:
        yield end
    finally:
        duration_ms = round((time.monotonic() - started) * 1000)
        metrics.CHART_IMG_CALLS.labels(account_id, end.outcome).inc()
        notify_call(
            accountId=account_id,
            callNumber=number,
            httpStatus=end.status,
            outcome=end.outcome,
            durationMs=duration_ms,
        )
        log.info(
            Event.CHART_API_CALL_FINISHED,
            f"Chart-IMG answered {end.status or 'nothing'} for {request.template_id}",
            chartTemplateId=request.template_id,
            accountId=account_id,
            callNumber=number,
            httpStatus=end.status,
            outcome=end.outcome,
            apiMessage=end.message or None,
            durationMs=duration_ms,
        )
