"""Fakes and sample documents for unit tests: a settable clock, runs, templates, pictures."""

from __future__ import annotations

import copy
import itertools
import struct
import threading
import time
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.auth import _helpers
from google.auth.credentials import Credentials

from worker_chart_export.charts.base import ChartImage, ChartRequest
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.concurrency.single_flight import LoadOnce
from worker_chart_export.inputs.flow_run import FlowRun
from worker_chart_export.ledger.lease import Lease, StoredLease
from worker_chart_export.ledger.run_snapshot import RunSnapshot
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pytest

    from worker_chart_export.errors import RequestError

BUCKET = "charts-unit"
RUN_ID = "20251215-102530_IBM_k3f7a"
STEP_ID = "charts:1d:main"
OHLCV_ID = "ohlcv_export:1d"
NOON = datetime(2025, 12, 15, 12, 0, 0, 123456, tzinfo=UTC)


class HandClock:
    """A clock that moves only when the test moves it."""

    def __init__(self) -> None:
        self.wall = NOON
        self.ticks = 1000.0

    def now(self) -> datetime:
        """Return the wall time."""
        return self.wall

    def monotonic(self) -> float:
        """Return the monotonic time."""
        return self.ticks

    def advance(self, seconds: float) -> None:
        """Move both clocks ahead."""
        self.wall += timedelta(seconds=seconds)
        self.ticks += seconds


def suspend_machine(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Move the boot clock ahead, but not `time.monotonic`, as a suspend of the machine does."""
    read = time.clock_gettime
    leap = {time.CLOCK_BOOTTIME: seconds}
    monkeypatch.setattr(time, "clock_gettime", lambda clock: read(clock) + leap.get(clock, 0.0))


def scope_of(seconds: float = 30.0) -> CancelScope:
    """A scope on the machine's clock."""
    return CancelScope(seconds=seconds, clock=SystemClock())


def chart_step(**changes: Any) -> dict[str, Any]:
    """A READY CHART_EXPORT step with one request. `changes` replace its fields; None removes a field."""
    step: dict[str, Any] = {
        "stepType": "CHART_EXPORT",
        "status": "READY",
        "createdAt": "2025-12-15T10:25:30Z",
        "timeframe": "1d",
        "dependsOn": [OHLCV_ID],
        "inputs": {"minImages": 1, "requests": [{"chartTemplateId": "ctpl_a"}]},
        "outputs": {},
    } | changes
    return {name: value for name, value in step.items() if value is not None}


def ohlcv_step(**changes: Any) -> dict[str, Any]:
    """A SUCCEEDED OHLCV_EXPORT step."""
    return {
        "stepType": "OHLCV_EXPORT",
        "status": "SUCCEEDED",
        "timeframe": "1d",
        "dependsOn": [],
        "inputs": {},
        "outputs": {"gcs_uri": "gs://charts-demo/ohlcv/IBM_1d.json"},
    } | changes


def run_document(steps: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A run with a finished OHLCV step and a READY chart step, or with these steps."""
    document = {
        "schemaVersion": 1,
        "runId": RUN_ID,
        "flowKey": "report_v1",
        "status": "RUNNING",
        "createdAt": "2025-12-15T10:25:30Z",
        "trigger": {"type": "MANUAL"},
        "scope": {"symbol": "IBM"},
        "steps": {OHLCV_ID: ohlcv_step(), STEP_ID: chart_step()} if steps is None else dict(steps),
    }
    return copy.deepcopy(document | changes)


def run_of(steps: Mapping[str, Any] | None = None, *, run_id: str = RUN_ID, **changes: Any) -> FlowRun:
    """`run_document`, parsed."""
    return FlowRun.parse(run_id, run_document(steps, **changes))


def lease_of(*, left_seconds: float = 100.0, **changes: Any) -> Lease:
    """A lease of another worker and another message. It expires `left_seconds` after `NOON`."""
    fields: dict[str, Any] = {
        "owner": "elsewhere:1:boot",
        "token": "its-token",
        "attempt": 1,
        "released": 0,
        "started_at": NOON - timedelta(seconds=60),
        "acquired_at": NOON - timedelta(seconds=60),
        "expires_at": NOON + timedelta(seconds=left_seconds),
        "message_id": "another",
    }
    return Lease(**fields | changes)


def snapshot_of(run: FlowRun | None, **leases: Lease | None) -> RunSnapshot:
    """A run that was read at `NOON`, with these leases by step id."""
    return RunSnapshot(
        run=run,
        update_time=NOON,
        read_time=NOON,
        asked_at=1000.0,
        leases={name: lease and StoredLease(lease=lease, update_time=NOON) for name, lease in leases.items()},
    )


def template_document(**request: Any) -> dict[str, Any]:
    """A chart template. The keywords go into its `request`."""
    return {
        "id": "ctpl_a",
        "description": "price + volume",
        "chartImgSymbolTemplate": "NYSE:{symbol}",
        "request": {
            "theme": "dark",
            "width": 800,
            "height": 600,
            "studies": [{"name": "Volume", "forceOverlay": True}],
        }
        | request,
    }


def png_bytes(width: int = 800, height: int = 600, *, padding: int = 0) -> bytes:
    """A complete PNG of one colour. `padding` bytes make it larger."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\x00" + b"\x7f" * width) * height)
    chunks = [chunk(b"IHDR", header), chunk(b"tEXt", b"Comment\x00" + b"x" * padding)]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")])


def chart_request(
    *,
    scope: CancelScope | None = None,
    call_scope: CancelScope | None = None,
    template_id: str = "ctpl_a",
    **payload: Any,
) -> ChartRequest:
    """A request for one chart of IBM."""
    scope = scope or scope_of()
    return ChartRequest(
        template_id=template_id,
        symbol="IBM",
        timeframe="1d",
        payload={"symbol": "NYSE:IBM", "interval": "1D", "timezone": "Etc/UTC"} | payload,
        candles=LoadOnce(lambda: b"[]"),
        scope=scope,
        call_scope=call_scope or scope,
    )


@dataclass
class ScriptedProvider:
    """A provider that makes a plain chart, or calls the function that `script` has for the template.

    Attributes:
        script: Functions by template id. Their result is the picture's bytes.
        asked: The template ids of all requests, in order.
    """

    script: dict[str, Callable[[ChartRequest], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)

    def known_failure(self, _request: ChartRequest) -> RequestError | None:
        """Return None: what fails is scripted."""
        return None

    def chart(self, request: ChartRequest) -> ChartImage:
        """Return the picture, or raise the script's error."""
        with self._lock:
            self.asked.append(request.template_id)
        make = self.script.get(request.template_id, lambda _request: png_bytes())
        return ChartImage(png=make(request), provider="mock", meta={"fixture": "none"})


class Tokens(Credentials):  # type: ignore[misc]  # the library has no types
    """Credentials that get numbered tokens, each valid for an hour."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)

    def refresh(self, _request: object) -> None:
        """Get the next token."""
        self.token = f"token-{next(self._numbers)}"
        self.expiry = _helpers.utcnow() + timedelta(hours=1)
