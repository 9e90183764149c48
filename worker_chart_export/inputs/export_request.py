"""The export request of a CHART_EXPORT step, checked before anything is paid for. Pure."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_chart_export.charts.whole_numbers import whole_number
from worker_chart_export.errors import ValidationFailed, shown
from worker_chart_export.inputs.flow_run import (
    MANIFEST_RUN_ID,
    MAX_SYMBOL_CHARS,
    OHLCV_EXPORT,
    is_template_id,
)

if TYPE_CHECKING:
    from worker_chart_export.inputs.flow_run import FlowRun, Step

MINUTES = (1, 3, 5, 15, 30, 45)
HOURS = (1, 2, 3, 4, 6, 8, 12)
#: Chart-IMG's intervals (its documentation, field `interval`). Each is also a timeframe of the same name.
API_INTERVALS = frozenset(
    [f"{minutes}m" for minutes in MINUTES]
    + [f"{hours}h" for hours in HOURS]
    + ["1D", "2D", "3D", "1W", "1M", "3M", "6M", "1Y"]
)
#: Other names of intervals: bare minutes as TradingView writes them, and `H` for an hour.
RENAMED_TIMEFRAMES = {
    "1d": "1D",
    "1w": "1W",
    **{f"{minutes}": f"{minutes}m" for minutes in MINUTES},
    **{f"{60 * hours}": f"{hours}h" for hours in HOURS},
    **{f"{hours}H": f"{hours}h" for hours in HOURS},
}
MAX_IDS_SHOWN = 3
#: Unicode categories: control and format characters (bidirectional marks too), surrogates, white space.
SYMBOL_CATEGORIES_REFUSED = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """The checked request of a CHART_EXPORT step.

    Attributes:
        symbol: The run's `scope.symbol`, without surrounding white space.
        timeframe: The step's timeframe, e.g. `1d`.
        interval: Chart-IMG's name for the timeframe, e.g. `1D`.
        template_ids: The requested templates, in the order of the requests.
        min_images: How many charts make the step a success.
        ohlcv_uri: The URI of the step's candles, or None.
    """

    symbol: str
    timeframe: str
    interval: str
    template_ids: tuple[str, ...]
    min_images: int
    ohlcv_uri: str | None


def parse_export_request(run: FlowRun, step: Step) -> ExportRequest:
    """Check all fields of a step that can be checked before anything is paid for.

    Raises:
        ValidationFailed: Names the first invalid field and the expected value.
    """
    if not MANIFEST_RUN_ID.fullmatch(run.run_id):
        form = "YYYYMMDD-HHmmss_SYMBOL_suffix, the only form readers of the manifest take"
        raise _invalid("runId", form, run.run_id)
    template_ids = _template_ids(step.inputs.get("requests"))
    symbol = _symbol(run.document.get("scope"))
    interval = chart_interval(step.timeframe)
    return ExportRequest(
        symbol=symbol,
        timeframe=str(step.timeframe),
        interval=interval,
        template_ids=template_ids,
        min_images=_min_images(step.inputs.get("minImages"), requested=len(template_ids)),
        ohlcv_uri=_ohlcv_uri(run, step, interval),
    )


def chart_interval(timeframe: object) -> str:
    """Return Chart-IMG's name for a timeframe: `1d -> 1D`, `1H -> 1h`, `15 -> 15m`, `240 -> 4h` ...

    The case of other values stays: `1m` is a minute and `1M` a month.

    Raises:
        ValidationFailed: The timeframe is missing, or Chart-IMG has no such interval.
    """
    interval = _interval(timeframe)
    if interval is None:
        raise _invalid("timeframe", "bare minutes (1, 5, 15, ..., 240), 1h, 4h, 1d, 1w or 1M", timeframe)
    return interval


def _interval(timeframe: object) -> str | None:
    interval = RENAMED_TIMEFRAMES.get(timeframe, timeframe) if isinstance(timeframe, str) else None
    return interval if interval in API_INTERVALS else None


def _symbol(scope: object) -> str:
    given = scope.get("symbol") if isinstance(scope, Mapping) else None
    symbol = given.strip() if isinstance(given, str) else ""
    if not 1 <= len(symbol) <= MAX_SYMBOL_CHARS or any(
        char == "/" or unicodedata.category(char) in SYMBOL_CATEGORIES_REFUSED for char in symbol
    ):
        expected = f"1-{MAX_SYMBOL_CHARS} characters without '/', white space or control characters"
        raise _invalid("scope.symbol", expected, given)
    return symbol


def _template_ids(requests: object) -> tuple[str, ...]:
    if not isinstance(requests, Sequence) or isinstance(requests, str) or not requests:
        raise _invalid("inputs.requests", "at least one request", requests)
    ids: list[str] = []
    for index, request in enumerate(requests):
        template_id = request.get("chartTemplateId") if isinstance(request, Mapping) else None
        if not isinstance(template_id, str) or not is_template_id(template_id):
            field = f"inputs.requests[{index}].chartTemplateId"
            got = template_id if isinstance(request, Mapping) else request
            raise _invalid(field, "1-128 characters of A-Z a-z 0-9 _ - and not __*__", got)
        ids.append(template_id)
    if duplicates := sorted(name for name, count in Counter(ids).items() if count > 1):
        shown_ids = ", ".join(duplicates[:MAX_IDS_SHOWN])
        more = f" and {len(duplicates) - MAX_IDS_SHOWN} more" if len(duplicates) > MAX_IDS_SHOWN else ""
        raise ValidationFailed(
            f"inputs.requests: expected each chartTemplateId once, got {shown_ids}{more} again.",
            field="inputs.requests",
        )
    return tuple(ids)


def _min_images(value: object, *, requested: int) -> int:
    min_images = requested if value is None else whole_number(value)
    if min_images is None or not 0 <= min_images <= requested:
        expected = f"a whole number from 0 to {requested} (the number of requests)"
        raise _invalid("inputs.minImages", expected, value)
    return min_images


def _ohlcv_uri(run: FlowRun, step: Step, interval: str) -> str | None:
    """Return the URI of the candles.

    It is `inputs.ohlcv_gcs_uri`, or the output of the OHLCV_EXPORT step of the same timeframe in `dependsOn`.
    """
    if (own := step.inputs.get("ohlcv_gcs_uri")) is not None:
        return str(own)
    for name in step.depends_on:
        source = run.step(name)
        if source and source.step_type == OHLCV_EXPORT and _interval(source.timeframe) == interval:
            uri = source.outputs.get("gcs_uri")
            return None if uri is None else str(uri)
    return None


def _invalid(field: str, expected: str, got: object) -> ValidationFailed:
    return ValidationFailed(f"{field}: expected {expected}, got {shown(got)}.", field=field)
