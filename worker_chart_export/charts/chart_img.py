"""`real` mode: Chart-IMG's v2 advanced chart over HTTP.

Protocol: https://doc.chart-img.com, `POST /v2/tradingview/advanced-chart`. The only owner of the HTTP client.
This is the plain call on the first account: no counting, no second account.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from tenacity import Retrying, retry_if_exception, wait_random_exponential

from worker_chart_export.charts.base import ChartImage
from worker_chart_export.charts.png import SIGNATURE, check_png
from worker_chart_export.errors import (
    ChartApiFailed,
    ChartApiLimitExceeded,
    ChartTooLarge,
    RequestError,
)
from worker_chart_export.logs import Event, log
from worker_chart_export.retry import full_jitter_seconds
from worker_chart_export.stoppable_httpx import make_stoppable
from worker_chart_export.stoppable_sockets import stoppable_by

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from worker_chart_export.budget import StepBudget
    from worker_chart_export.charts.base import ChartRequest

PATH = "/v2/tradingview/advanced-chart"
CONNECT_TIMEOUT_SECONDS = 5.0
#: Above the 29 s after which the provider's gateway answers 504 itself.
READ_TIMEOUT_SECONDS = 40.0
MAX_ATTEMPTS = 6
LEAST_DELAY_SECONDS = 0.5
MOST_DELAY_SECONDS = 8.0
#: A body beyond this is no chart; reading stops there.
MAX_BODY_BYTES = 8 * 1024 * 1024
SERVER_TROUBLE = frozenset({500, 502, 503, 504})
RATE_LIMITED = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One Chart-IMG account. The key is kept out of every repr.

    Raises:
        ValueError: The key can't stand in an HTTP header.
    """

    account_id: str
    api_key: str

    def __post_init__(self) -> None:
        if re.fullmatch(r"[\x21-\x7e]+", self.api_key) is None:
            raise ValueError(f"api_key of account {self.account_id!r}: expected printable ASCII")

    def __repr__(self) -> str:
        return f"Account(account_id={self.account_id!r})"


class _Unusable(ChartApiFailed):
    """One answer that is no chart, or no answer at all; `again` says whether asking again makes sense."""

    def __init__(self, message: str, *, again: bool, **details: Any) -> None:
        super().__init__(message, **details)
        self.again = again


class _TooFast(_Unusable):
    """A 429 for asking too often: no attempt, ask again a second later."""


class _Attempts:
    """Counts what counts as an attempt of one chart, for `tenacity` to stop by."""

    def __init__(self) -> None:
        self._failed = 0

    def are_used_up(self, state: RetryCallState) -> bool:
        """Whether the answer just had was the last attempt."""
        self._failed += not isinstance(_error_of(state), _TooFast)
        return self._failed >= MAX_ATTEMPTS


class ChartImgProvider:
    """Asks Chart-IMG. Shared by all threads.

    Args:
        base_url: e.g. `https://api.chart-img.com`.
        account: The account to use.
        max_png_bytes: Pictures above this size are refused.
        connections: How many calls may be under way at once.
    """

    def __init__(self, *, base_url: str, account: Account, max_png_bytes: int, connections: int) -> None:
        self._account = account
        self._max_png_bytes = max_png_bytes
        self._http = httpx.Client(
            base_url=base_url,
            timeout=httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
        make_stoppable(self._http)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def chart(self, request: ChartRequest) -> ChartImage:
        """Ask until there is a chart, at most six times and within the step's budget.

        Raises:
            ChartApiFailed: There is none to be had.
            ChartTooLarge: It is larger than its readers accept.
            ChartApiLimitExceeded: The account is used up.
            StepTimedOut: The step's time is over.
            WorkerError: What the step was stopped with, a call under way included.
        """
        attempts = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, _Unusable) and error.again),
            stop=_Attempts().are_used_up,
            wait=_pause_seconds,
            sleep=request.budget.sleep,
            reraise=True,
        )
        return attempts(self._ask_once, request)

    def _ask_once(self, request: ChartRequest) -> ChartImage:
        request.budget.check()
        started = time.monotonic()
        status, outcome = 0, "stopped"
        try:
            status, body = self._post(request)
            self._check(status, body, request)
            outcome = "ok"
        except RequestError as error:
            outcome = str(error.code)
            raise
        finally:
            log.info(
                Event.CHART_API_CALL_FINISHED,
                f"Chart-IMG answered {status or 'nothing'} for {request.template_id}",
                chartTemplateId=request.template_id,
                accountId=self._account.account_id,
                httpStatus=status,
                outcome=outcome,
                durationMs=round((time.monotonic() - started) * 1000),
            )
        return ChartImage(png=body, provider="chart-img", meta={"accountId": self._account.account_id})

    def _post(self, request: ChartRequest) -> tuple[int, bytes]:
        timeout = httpx.Timeout(
            max(0.1, min(READ_TIMEOUT_SECONDS, request.budget.remaining_seconds())),
            connect=CONNECT_TIMEOUT_SECONDS,
        )
        try:
            with (
                stoppable_by(request.budget),
                self._http.stream(
                    "POST",
                    PATH,
                    json=dict(request.payload),
                    headers={"x-api-key": self._account.api_key},
                    timeout=timeout,
                ) as response,
            ):
                return response.status_code, _read_body(response, request.budget)
        except httpx.RequestError as error:
            request.budget.check()
            kind, cause = type(error).__name__, self._without_key(str(error))
            # `from None`: a refusal to send the key quotes it, and a traceback would show that.
            raise _Unusable(f"Chart-IMG did not answer: {kind}.", again=True, cause=cause) from None

    def _check(self, status: int, body: bytes, request: ChartRequest) -> None:
        """Return if the answer is the chart asked for."""
        words = "" if body.startswith(SIGNATURE) else self._without_key(api_words(body))
        if "limit exceeded" in words.lower():
            log.warning(
                Event.CHART_API_LIMIT_EXCEEDED,
                "The Chart-IMG account is used up for today",
                accountId=self._account.account_id,
            )
            raise ChartApiLimitExceeded(
                "The Chart-IMG account is used up for today.",
                httpStatus=status,
                accountId=self._account.account_id,
            )
        if status == httpx.codes.OK:
            try:
                check_png(body, width=request.width, height=request.height, max_bytes=self._max_png_bytes)
            except ChartApiFailed as error:
                raise _Unusable(error.message, again=True, httpStatus=status, **error.details) from error
            return
        kind = _TooFast if status == RATE_LIMITED else _Unusable
        again = status in SERVER_TROUBLE or status == RATE_LIMITED
        said = f"Chart-IMG answered {status}: {words}"
        raise kind(said, again=again, httpStatus=status, apiMessage=words)

    def _without_key(self, words: str) -> str:
        """Servers and libraries quote what they refuse."""
        return words.replace(self._account.api_key, "(key)")


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


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _pause_seconds(state: RetryCallState) -> float:
    """About a second after a rate 429; else 0.5-8 s, drawn evenly up to a bound that doubles each time."""
    if isinstance(_error_of(state), _TooFast):
        return full_jitter_seconds(least=0.5, most=1.5)
    return max(LEAST_DELAY_SECONDS, wait_random_exponential(multiplier=1, max=MOST_DELAY_SECONDS)(state))


def api_words(body: bytes) -> str:
    """What an error body says: `message`, `error`, `errors[]`, or a bare array of such objects."""
    try:
        words = "; ".join(_phrases(json.loads(body)))
    except (ValueError, RecursionError):
        words = body[:200].decode("utf-8", errors="replace")
    return " ".join(words.split())[:300] or "no message"


def _phrases(value: Any) -> list[str]:
    if isinstance(value, list):
        return [phrase for item in value[:10] for phrase in _phrases(item)]
    if not isinstance(value, dict):
        return [str(value)]
    if isinstance(value.get("errors"), list):
        return _phrases(value["errors"])
    text = next((str(value[key]) for key in ("message", "msg", "error") if value.get(key)), "")
    return [f"{value['param']}: {text}" if value.get("param") else text] if text else []
