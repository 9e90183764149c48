"""The HTTP service of the Chart-IMG stand-in: keys, quotas, a log of requests, pictures."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud.chart_img.answers import ANSWERS, QUOTING, png, quoting
from localcloud.http_requests import read_json
from localcloud.http_server import HttpService, Request, Response, json_response
from localcloud.service import Calls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localcloud.faults import Fault

PATH = "/v2/tradingview/advanced-chart"
METHOD = "advanced-chart"
_DEFAULT_SIZE = (800, 600)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartCall:
    """One request for a chart.

    Attributes:
        key: The `x-api-key` header; empty when absent.
        body: The JSON body; None when it was not JSON.
        status: The answer's HTTP status; 0 when the connection was dropped.
        at: The time of arrival, seconds since 1970.
    """

    key: str
    body: Any
    status: int
    at: float


class ChartImgService(HttpService):
    """Answer every valid request with a PNG of the requested size.

    Any non-empty key is valid until `configure` sets the valid ones. Faults may name a response of
    `localcloud.chart_img.answers`; their subject is `KEY SYMBOL INTERVAL`.

    Attributes:
        requests: All requests and their status, oldest first.
        calls_per_key: A counter per key.
        charts_per_key: A counter per key of the charts returned: the charts that an account pays for.
    """

    name = "chart-img"
    methods = frozenset({METHOD})
    supported_faults = HttpService.supported_faults | {"answer"}

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self.calls_per_key = Calls()
        self.charts_per_key = Calls()
        self._lock = threading.Lock()
        self._requests: list[ChartCall] = []
        self._limits: Mapping[str, int | None] = {}

    @property
    def requests(self) -> list[ChartCall]:
        """Return a copy of the log."""
        with self._lock:
            return list(self._requests)

    def configure(self, limits: Mapping[str, int | None]) -> None:
        """Set the valid keys and the charts of each before `429 Limit Exceeded` (None = no limit)."""
        with self._lock:
            self._limits = dict(limits)

    def lose_state(self) -> None:
        """Clear the log and the counters per key. The configured keys stay."""
        with self._lock:
            self._requests = []
        self.calls_per_key.reset()
        self.charts_per_key.reset()

    def identify(self, request: Request) -> str:
        """Return `advanced-chart`, or `unknown` for other paths and methods."""
        return METHOD if (request.method, request.path) == ("POST", PATH) else "unknown"

    def subject(self, request: Request) -> str:
        """Return key, symbol and interval."""
        body = _body(request)
        fields = body if isinstance(body, dict) else {}
        return f"{_key(request)} {fields.get('symbol', '')} {fields.get('interval', '')}"

    def check_fault(self, fault: Fault) -> None:
        """Also refuse names of responses that are not scripted."""
        super().check_fault(fault)
        if fault.answer and fault.answer not in (known := ANSWERS.keys() | QUOTING.keys()):
            raise ValueError(f"no answer {fault.answer!r}, only {', '.join(sorted(known))}")

    def scripted(self, fault: Fault, request: Request) -> Response | None:
        """Return the response that the fault names."""
        if fault.answer in QUOTING:
            return quoting(fault.answer, _key(request))
        return ANSWERS[fault.answer] if fault.answer else super().scripted(fault, request)

    def respond(self, request: Request) -> Response:
        """Respond as every service does, and log the request."""
        at, status = time.time(), 0
        self.calls_per_key.add(_key(request))
        try:
            response = super().respond(request)
            status = response.status
        finally:
            with self._lock:
                self._requests.append(ChartCall(key=_key(request), body=_body(request), status=status, at=at))
        return response

    def answer(self, method: str, request: Request) -> Response:
        """Return a chart, or the response that says why there is none."""
        if method != METHOD:
            return ANSWERS["not_found"]
        body = _body(request)
        if not isinstance(body, dict):
            return ANSWERS["bad_request"]
        refusal = self._refused(_key(request)) or _invalid(body)
        return refusal or self._chart(_key(request), body)

    def _refused(self, key: str) -> Response | None:
        with self._lock:
            if not key or (self._limits and key not in self._limits):
                return ANSWERS["forbidden"]
            limit = self._limits.get(key)
        return ANSWERS["limit_exceeded"] if limit is not None and self.charts_per_key[key] >= limit else None

    def _chart(self, key: str, body: Mapping[str, Any]) -> Response:
        self.charts_per_key.add(key)
        width, height = (
            int(body.get(name, default))
            for name, default in zip(("width", "height"), _DEFAULT_SIZE, strict=True)
        )
        text = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return Response(body=png(width, height, text), content_type="image/png")


def _key(request: Request) -> str:
    return request.headers.get("x-api-key", "")


def _body(request: Request) -> Any:
    try:
        return read_json(request.body)
    except ValueError:
        return None


def _invalid(body: Mapping[str, Any]) -> Response | None:
    """Return 422 in the API's format for a missing symbol or an invalid size."""
    if not isinstance(body.get("symbol"), str) or not body["symbol"]:
        return ANSWERS["invalid_symbol"]
    for name in ("width", "height"):
        value = body.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:  # noqa: PLR2004 - pixels
            return json_response(
                [{"value": value, "msg": "Invalid value", "param": name, "location": "body"}], 422
            )
    return None
