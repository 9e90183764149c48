"""What a CHART_EXPORT step asks for, checked before anything is paid for. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_chart_export.errors import ValidationFailed, shown
from worker_chart_export.inputs.flow_run import OHLCV_EXPORT
from worker_chart_export.inputs.identifiers import MANIFEST_RUN_ID, is_template_id

if TYPE_CHECKING:
    from worker_chart_export.inputs.flow_run import FlowRun, Step

#: Chart-IMG's intervals (its documentation, field `interval`), each also a timeframe of the same name.
API_INTERVALS = frozenset(
    ["1m", "3m", "5m", "15m", "30m", "45m"]
    + ["1h", "2h", "3h", "4h", "6h", "8h", "12h"]
    + ["1D", "2D", "3D", "1W", "1M", "3M", "6M", "1Y"]
)
RENAMED_TIMEFRAMES = {"1d": "1D", "1w": "1W"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What a CHART_EXPORT step asks for, checked.

    Attributes:
        symbol: `scope.symbol`.
        timeframe: As the step has it, e.g. `1d`.
        interval: The same in Chart-IMG's words, e.g. `1D`.
        template_ids: The requested templates, in the order asked.
        min_images: How many charts make the step a success.
        ohlcv_uri: Where the step's candles are, or None.
    """

    symbol: str
    timeframe: str
    interval: str
    template_ids: tuple[str, ...]
    min_images: int
    ohlcv_uri: str | None


def parse_export_request(run: FlowRun, step: Step) -> ExportRequest:
    """Check everything about a step that can be checked before anything is paid for.

    Raises:
        ValidationFailed: Names the first field that is wrong and what was expected there.
    """
    if not MANIFEST_RUN_ID.fullmatch(run.run_id):
        raise ValidationFailed(
            "runId: expected YYYYMMDD-HHmmss_SYMBOL_suffix, the only form readers of the manifest take, "
            f"got {shown(run.run_id)}.",
            field="runId",
        )
    template_ids = _template_ids(step.inputs.get("requests"))
    return ExportRequest(
        symbol=_symbol(run.document.get("scope")),
        timeframe=str(step.timeframe),
        interval=chart_interval(step.timeframe),
        template_ids=template_ids,
        min_images=_min_images(step.inputs.get("minImages"), len(template_ids)),
        ohlcv_uri=_ohlcv_uri(run, step),
    )


def chart_interval(timeframe: object) -> str:
    """A step's timeframe in Chart-IMG's words: `1d -> 1D`, `1w -> 1W`, `15 -> 15m`, others unchanged.

    The case of any other value is never changed: `1m` is a minute and `1M` a month.

    Raises:
        ValidationFailed: The timeframe is missing or has no counterpart.
    """
    if isinstance(timeframe, str):
        minutes = f"{timeframe}m" if timeframe.isdecimal() else timeframe
        interval = RENAMED_TIMEFRAMES.get(timeframe, minutes)
        if interval in API_INTERVALS:
            return interval
    raise ValidationFailed(
        f"timeframe: expected bare minutes (1, 5, 15, ...), 1h, 4h, 1d, 1w or 1M, got {shown(timeframe)}.",
        field="timeframe",
    )


def _symbol(scope: object) -> str:
    symbol = scope.get("symbol") if isinstance(scope, Mapping) else None
    if isinstance(symbol, str) and re.fullmatch(r"[^\s/]{1,128}", symbol):
        return symbol
    raise ValidationFailed(
        f"scope.symbol: expected 1-128 characters without '/' or white space, got {shown(symbol)}.",
        field="scope.symbol",
    )


def _template_ids(requests: object) -> tuple[str, ...]:
    if not isinstance(requests, Sequence) or isinstance(requests, str) or not requests:
        raise ValidationFailed(
            f"inputs.requests: expected at least one request, got {shown(requests)}.",
            field="inputs.requests",
        )
    ids = tuple(_template_id(index, request) for index, request in enumerate(requests))
    duplicates = sorted({name for name in ids if ids.count(name) > 1})
    if duplicates:
        raise ValidationFailed(
            f"inputs.requests: expected each chartTemplateId once, got {', '.join(duplicates)} again.",
            field="inputs.requests",
        )
    return ids


def _template_id(index: int, request: object) -> str:
    template_id = request.get("chartTemplateId") if isinstance(request, Mapping) else None
    if isinstance(template_id, str) and is_template_id(template_id):
        return template_id
    field = f"inputs.requests[{index}].chartTemplateId"
    raise ValidationFailed(
        f"{field}: expected 1-128 characters of A-Z a-z 0-9 _ - and not __*__, got {shown(template_id)}.",
        field=field,
    )


def _min_images(value: object, requested: int) -> int:
    if value is None:
        return requested
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= requested:
        return value
    raise ValidationFailed(
        f"inputs.minImages: expected a whole number from 0 to {requested} (the number of requests), "
        f"got {shown(value)}.",
        field="inputs.minImages",
    )


def _ohlcv_uri(run: FlowRun, step: Step) -> str | None:
    """`inputs.ohlcv_gcs_uri`, else what the OHLCV_EXPORT step of the same timeframe in `dependsOn` wrote."""
    if (own := step.inputs.get("ohlcv_gcs_uri")) is not None:
        return str(own)
    for name in step.depends_on:
        source = run.step(name)
        if source and source.step_type == OHLCV_EXPORT and source.timeframe == step.timeframe:
            uri = source.outputs.get("gcs_uri")
            return None if uri is None else str(uri)
    return None
