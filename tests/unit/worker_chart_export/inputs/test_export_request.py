"""The checks of a step before anything is paid for."""

from __future__ import annotations

import time

import pytest

from tests.support.fakes import OHLCV_ID, RUN_ID, STEP_ID, chart_step, ohlcv_step, run_of
from worker_chart_export.errors import ValidationFailed
from worker_chart_export.inputs.export_request import ExportRequest, chart_interval, parse_export_request

REQUESTS = [{"chartTemplateId": "ctpl_a"}, {"chartTemplateId": "ctpl_b"}]


def _order_of(*, run_id: str = RUN_ID, scope: object = "unchanged", **changes: object) -> ExportRequest:
    extra = {} if scope == "unchanged" else {"scope": scope}
    run = run_of({OHLCV_ID: ohlcv_step(), STEP_ID: chart_step(**changes)}, run_id=run_id, **extra)
    step = run.step(STEP_ID)
    assert step is not None
    return parse_export_request(run, step)


def _inputs(**changes: object) -> dict[str, object]:
    return {"minImages": 1, "requests": REQUESTS} | changes


def test_a_good_step_is_read_whole():
    """Every field of a valid step is read."""
    assert _order_of(inputs=_inputs()) == ExportRequest(
        symbol="IBM",
        timeframe="1d",
        interval="1D",
        template_ids=("ctpl_a", "ctpl_b"),
        min_images=1,
        ohlcv_uri="gs://charts-demo/ohlcv/IBM_1d.json",
    )


@pytest.mark.parametrize(
    ("timeframe", "interval"),
    [("1d", "1D"), ("1w", "1W"), ("1M", "1M"), ("1h", "1h"), ("4h", "4h")]
    + [("1", "1m"), ("5", "5m"), ("15", "15m"), ("30", "30m"), ("1m", "1m"), ("15m", "15m"), ("1D", "1D")]
    + [("1H", "1h"), ("2H", "2h"), ("4H", "4h"), ("12H", "12h"), ("45", "45m"), ("60", "1h"), ("120", "2h")]
    + [("180", "3h"), ("240", "4h"), ("360", "6h"), ("480", "8h"), ("720", "12h"), ("3M", "3M")],
)
def test_timeframes_are_mapped(timeframe, interval):
    """Timeframes are mapped to Chart-IMG's names; a month is not a minute."""
    assert chart_interval(timeframe) == interval


@pytest.mark.parametrize(
    "timeframe",
    [
        None,
        "",
        "d",
        "5H",
        "1S",
        "15M",
        "300",
        "1440",
        "060",
        "60m",
        " 1h",
        "1x",
        "0",
        "7",
        "-15",
        "1.5",
        " 1d",
        "1d\n",
        "\uff11\uff15",
        "\u0666\u0660",
        "M1",
        15,
        ["1d"],
        {},
        True,
    ],
)
def test_other_timeframes_are_refused(timeframe):
    """Other timeframes are refused, without changing their case."""
    with pytest.raises(ValidationFailed, match=r"^timeframe: expected ") as caught:
        chart_interval(timeframe)
    assert caught.value.details == {"field": "timeframe"}


def test_a_missing_timeframe_is_refused():
    """A missing timeframe is refused, because the file name needs it."""
    with pytest.raises(ValidationFailed, match=r"^timeframe: .* got nothing"):
        _order_of(timeframe=None)


@pytest.mark.parametrize(("value", "expected"), [(None, 2), (0, 0), (1, 1), (2, 2), (0.0, 0), (2.0, 2)])
def test_min_images_from_zero_to_the_number_of_requests(value, expected):
    """`minImages` is 0 to the number of requests, also as a double; when absent it is that number."""
    given = {"requests": REQUESTS} if value is None else _inputs(minImages=value)
    min_images = _order_of(inputs=given).min_images
    assert (min_images, type(min_images)) == (expected, int)


@pytest.mark.parametrize(
    "value", [-1, 3, 3.0, 1.5, -1.0, float("nan"), float("inf"), "1", "1.0", True, False, [1]]
)
def test_other_min_images_are_refused(value):
    """Other values of `minImages` are refused, also true and false."""
    with pytest.raises(ValidationFailed, match=r"^inputs\.minImages: expected a whole number from 0 to 2"):
        _order_of(inputs=_inputs(minImages=value))


@pytest.mark.parametrize("requests", [None, [], "ctpl_a", {"chartTemplateId": "ctpl_a"}, 7])
def test_requests_must_be_a_list_with_something_in_it(requests):
    """`requests` must be a list with at least one item."""
    with pytest.raises(ValidationFailed, match=r"^inputs\.requests: expected at least one"):
        _order_of(inputs=_inputs(requests=requests))


@pytest.mark.parametrize("inputs_value", [None, [], "x"])
def test_inputs_that_are_missing_or_no_map_are_refused(inputs_value):
    """Missing inputs, or inputs that are no map, are refused like a step without requests."""
    with pytest.raises(ValidationFailed, match=r"^inputs\.requests"):
        _order_of(inputs=inputs_value)


def test_duplicate_requests_are_refused_by_name():
    """Duplicate requests are refused by name, because they would have one object name."""
    with pytest.raises(ValidationFailed, match=r"got ctpl_a again"):
        _order_of(inputs=_inputs(requests=[*REQUESTS, REQUESTS[0]]))


@pytest.mark.parametrize(
    "request_",
    ["ctpl_a", None, {}, {"chartTemplateId": ""}, {"chartTemplateId": 7}, {"chartTemplateId": "a/b"}]
    + [
        {"chartTemplateId": "x" * 129},
        {"chartTemplateId": "a.b"},
        {"chartTemplateId": "a\n"},
        {"chartTemplateId": "ä"},
    ],
)
def test_a_bad_template_id_is_refused_by_its_place(request_):
    """A bad template id is refused with its index."""
    with pytest.raises(ValidationFailed) as caught:
        _order_of(inputs=_inputs(requests=[REQUESTS[0], request_]))
    assert caught.value.details == {"field": "inputs.requests[1].chartTemplateId"}


def test_a_template_id_of_128_characters_is_accepted():
    """A template id of 128 characters is accepted."""
    name = "Aa0_-" + "x" * 123
    assert _order_of(inputs=_inputs(requests=[{"chartTemplateId": name}])).template_ids == (name,)


@pytest.mark.parametrize(
    "scope",
    [
        None,
        {},
        "IBM",
        {"symbol": None},
        {"symbol": ""},
        {"symbol": "A/B"},
        {"symbol": "A B"},
        {"symbol": "A\nB"},
        {"symbol": " / "},
        {"symbol": "A" * 129},
    ]
    + [{"symbol": "\u2003"}, {"symbol": 7}],
)
def test_a_bad_symbol_is_refused(scope):
    """A symbol that is missing, empty or too long, or has a slash or white space, is refused."""
    with pytest.raises(ValidationFailed, match=r"^scope\.symbol: expected ") as caught:
        _order_of(scope=scope)
    assert caught.value.details == {"field": "scope.symbol"}


@pytest.mark.parametrize(
    "char",
    ["\0", "\x07", "\x1b", "\x7f", "\x85", "\x9b"]  # control characters
    + [
        "\u200b",
        "\u200e",
        "\u202e",
        "\u2066",
        "\u2069",
        "\ufeff",
        "\u00ad",
        "\U000e0041",
    ]  # format characters
    + ["\ud800", "\udfff", "\u00a0", "\u3000", "\u2028", "\u2029"],
)
def test_a_symbol_with_characters_that_can_t_be_seen_is_refused(char):
    """Control and format characters, surrogates and special spaces in a symbol are refused."""
    with pytest.raises(ValidationFailed, match=r"^scope\.symbol: expected ") as caught:
        _order_of(scope={"symbol": f"A{char}B"})
    assert caught.value.message.isascii()


@pytest.mark.parametrize("symbol", [" IBM ", "IBM\n", "\tIBM", "\u00a0IBM\u2003"])
def test_white_space_around_a_symbol_is_left_out(symbol):
    """White space around a symbol is left out."""
    assert _order_of(scope={"symbol": symbol}).symbol == "IBM"


@pytest.mark.parametrize(
    "symbol", ["IBM", "BRK.B", "BINANCE:BTCUSDT", "EURUSD=X", "^GSPC", "ÖBB", "株", "\U0001f600"]
)
def test_common_symbols_are_accepted_unchanged(symbol):
    """Common symbols are accepted unchanged."""
    assert _order_of(scope={"symbol": symbol}).symbol == symbol


@pytest.mark.parametrize("run_id", ["run-1", "20251215-102530_ibm_k3f7a"])
def test_a_run_id_that_the_manifest_can_t_hold_is_refused_first(run_id):
    """A run id that the manifest schema refuses is refused before a chart is paid for."""
    with pytest.raises(ValidationFailed, match=r"^runId: expected ") as caught:
        _order_of(run_id=run_id, timeframe="??")
    assert caught.value.details == {"field": "runId"}


def test_many_requests_are_checked_at_once():
    """20,000 requests are checked in well under a second, and only a few duplicates are named."""
    requests = [{"chartTemplateId": f"ctpl_{number:05}"} for number in range(20_000)]
    started = time.process_time()
    assert len(_order_of(inputs=_inputs(requests=requests)).template_ids) == 20_000
    with pytest.raises(ValidationFailed) as caught:
        _order_of(inputs=_inputs(requests=requests * 2))
    assert time.process_time() - started < 1
    assert "got ctpl_00000, ctpl_00001, ctpl_00002 and 19997 more again" in caught.value.message


def test_candles_named_by_the_step_itself_come_first():
    """Candles named in the step's inputs come before those of its dependencies."""
    given = _inputs(ohlcv_gcs_uri="gs://other/own.json")
    assert _order_of(inputs=given).ohlcv_uri == "gs://other/own.json"


@pytest.mark.parametrize(
    "source",
    [
        ohlcv_step(timeframe="1w"),
        ohlcv_step(stepType="LLM"),
        ohlcv_step(outputs={}),
        ohlcv_step(outputs=None),
    ],
)
def test_other_outputs_are_no_candles(source):
    """Outputs of another timeframe or type, or without URI, are no candles."""
    run = run_of({OHLCV_ID: source, STEP_ID: chart_step()})
    step = run.step(STEP_ID)
    assert step is not None
    assert parse_export_request(run, step).ohlcv_uri is None


def test_candles_of_steps_outside_depends_on_are_not_used():
    """Outputs of steps outside `dependsOn` are not used, because they may not be written yet."""
    assert _order_of(dependsOn=[]).ohlcv_uri is None


@pytest.mark.parametrize(
    ("own", "other"), [("60", "1h"), ("1h", "1H"), ("4H", "240"), ("15m", "15"), ("1D", "1d")]
)
def test_candles_of_the_same_timeframe_in_other_words_are_found(own, other):
    """Candles are found when both timeframes mean the same."""
    run = run_of({OHLCV_ID: ohlcv_step(timeframe=other), STEP_ID: chart_step(timeframe=own)})
    step = run.step(STEP_ID)
    assert step is not None
    assert parse_export_request(run, step).ohlcv_uri == "gs://charts-demo/ohlcv/IBM_1d.json"


@pytest.mark.parametrize("other", ["1M", "1", None, 1, ["1m"], "soon"])
def test_candles_of_a_timeframe_that_is_another_or_none_are_not_used(other):
    """Candles of another timeframe, or of a value that is no timeframe, are not used."""
    run = run_of({OHLCV_ID: ohlcv_step(timeframe=other), STEP_ID: chart_step(timeframe="1h")})
    step = run.step(STEP_ID)
    assert step is not None
    assert parse_export_request(run, step).ohlcv_uri is None


def test_the_matching_candles_are_found_among_several():
    """The matching candles are found by type and timeframe among several."""
    steps = {
        "o:1w": ohlcv_step(timeframe="1w", outputs={"gcs_uri": "gs://b/w"}),
        "o:1d": ohlcv_step(outputs={"gcs_uri": "gs://b/d"}),
        STEP_ID: chart_step(dependsOn=["gone", "o:1w", "o:1d"]),
    }
    run = run_of(steps)
    step = run.step(STEP_ID)
    assert step is not None
    assert parse_export_request(run, step).ohlcv_uri == "gs://b/d"
