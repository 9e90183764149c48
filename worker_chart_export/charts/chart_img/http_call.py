"""One call of Chart-IMG's v2 advanced chart over HTTP. The only owner of the HTTP client.

Protocol: https://doc.chart-img.com, `POST /v2/tradingview/advanced-chart`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from worker_chart_export.errors import ChartTooLarge, WorkerError
from worker_chart_export.stoppable_httpx import make_stoppable
from worker_chart_export.stoppable_sockets import stoppable_by

if TYPE_CHECKING:
    from worker_chart_export.budget import StepBudget
    from worker_chart_export.charts.base import ChartRequest
    from worker_chart_export.charts.chart_img.accounts import Account

PATH = "/v2/tradingview/advanced-chart"
CONNECT_TIMEOUT_SECONDS = 5.0
#: Above the 29 s after which the provider's gateway answers 504 itself.
READ_TIMEOUT_SECONDS = 40.0
#: A body beyond this is no chart; reading stops there.
MAX_BODY_BYTES = 8 * 1024 * 1024


class NoAnswer(WorkerError):
    """The call ended without an answer: no connection, a timeout, a reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back."""

    status: int
    body: bytes
    retry_after: str | None


class ChartApi:
    """Calls Chart-IMG. Shared by all threads.

    Args:
        base_url: e.g. `https://api.chart-img.com`.
        connections: How many calls may be under way at once.
    """

    def __init__(self, *, base_url: str, connections: int) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            timeout=httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
        make_stoppable(self._http)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def post(self, account: Account, request: ChartRequest) -> Response:
        """Call once.

        Raises:
            NoAnswer: Says why, without the key.
            ChartTooLarge: The body is too large for any chart.
            WorkerError: The step was stopped, or its time is over.
        """
        budget = request.budget
        read_seconds = max(0.1, min(READ_TIMEOUT_SECONDS, budget.remaining_seconds()))
        try:
            with (
                stoppable_by(budget),
                self._http.stream(
                    "POST",
                    PATH,
                    json=dict(request.payload),
                    headers={"x-api-key": account.api_key.get_secret_value()},
                    timeout=httpx.Timeout(read_seconds, connect=min(CONNECT_TIMEOUT_SECONDS, read_seconds)),
                ) as response,
            ):
                body = _read_body(response, budget)
                return Response(
                    status=response.status_code, body=body, retry_after=response.headers.get("retry-after")
                )
        except httpx.RequestError as error:
            budget.check()
            words = f"{type(error).__name__}: {account.without_key(str(error))}"
            # `from None`: a refusal to send the key quotes it, and a traceback would show that.
            raise NoAnswer(words) from None


def _read_body(response: httpx.Response, budget: StepBudget) -> bytes:
    """The whole body, within the step's time (a read timeout alone does not end a slow drip) and the size."""
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        budget.check()
        if len(body) > MAX_BODY_BYTES:
            raise ChartTooLarge(f"Chart-IMG answered with more than {MAX_BODY_BYTES} bytes.")
    budget.check_stopped()  # a body of no announced length just ends when its connection is shut down
    return bytes(body)
