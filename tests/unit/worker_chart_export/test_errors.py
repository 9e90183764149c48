"""Errors in the format in which they are stored."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker_chart_export import errors
from worker_chart_export.errors import ErrorCode, OutOfReach, RequestError, StepError, ValidationFailed, shown

CONTRACT_CODES = {
    "VALIDATION_FAILED",
    "CHART_API_FAILED",
    "CHART_API_LIMIT_EXCEEDED",
    "CHART_API_MOCK_MISSING",
    "CHART_TOO_LARGE",
    "OHLCV_UNAVAILABLE",
    "RENDER_FAILED",
    "GCS_WRITE_FAILED",
    "MANIFEST_WRITE_FAILED",
    "STEP_TIMEOUT",
    "CRASH_LOOP",
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def _stored_size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def test_the_codes_are_the_contract_s():
    """The codes are exactly those of the contract."""
    assert set(ErrorCode) == CONTRACT_CODES


def test_each_kind_of_request_error_has_a_code_of_its_own():
    """Each kind of request error has its own code; `OutOfReach` has that of another failure."""
    codes = [kind.code for kind in RequestError.__subclasses__() if kind is not OutOfReach]
    assert len(set(codes)) == len(codes) == len(CONTRACT_CODES - {"CRASH_LOOP"})


def test_every_error_is_in_the_docstring_s_tree():
    """Every error class is in the module docstring's tree."""
    kinds = [
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    assert [name for name in kinds if name not in str(errors.__doc__)] == []


def test_a_message_is_cut_at_500_characters():
    """A message over 500 characters is cut and ends with an ellipsis."""
    message = StepError("X", "é" * 600).to_dict()["message"]
    assert message == "é" * 499 + "…"


def test_a_message_of_500_characters_is_whole():
    """A message of 500 characters is not cut."""
    assert StepError("X", "é" * 500).to_dict()["message"] == "é" * 500


def test_a_message_is_one_line():
    """White space of any kind in a message becomes one space."""
    assert StepError("X", " a\n\tb \r\n c ").to_dict()["message"] == "a b c"


def test_a_message_holds_no_control_characters():
    """Escape sequences, the bell and bidirectional marks of a foreign server are written as escapes."""
    error = StepError(code=ErrorCode.CHART_API_FAILED, message="a\x1b[31mred\x07 \u202eleft\u2028new\x9bline")
    assert error.to_dict()["message"] == r"a\x1b[31mred\x07 \u202eleft new\x9bline"


def test_an_empty_message_is_replaced():
    """An empty message is replaced by a text, because the manifest's schema needs a character."""
    assert StepError("X", " \n").to_dict()["message"] == "no message"


def test_without_details_there_is_no_key_for_them():
    """Without details the stored error has no `details` key."""
    assert StepError("X", "m", {}).to_dict() == {"code": "X", "message": "m"}


def test_a_long_detail_of_multibyte_text_is_shortened_not_dropped():
    """Details are limited to 2 KiB of UTF-8, and a long text is shortened and not dropped."""
    details = StepError("X", "m", {"apiMessage": "请求无效" * 1000}).to_dict()["details"]
    assert details["apiMessage"].startswith("请求无效请求无效")
    assert _stored_size(details) <= 2048


def test_details_keep_the_first_that_fit():
    """When details are too large the first ones stay."""
    details = StepError("X", "m", {"a": "x" * 400, **{f"k{i}": "y" * 400 for i in range(9)}}).to_dict()[
        "details"
    ]
    assert list(details) == ["a", "k0", "k1", "k2"]


@settings(max_examples=60)
@given(st.text(), st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_any_stored_error_is_small_and_storable(message, details):
    """Any stored error has at most 500 characters and 2 KiB, and only valid UTF-8."""
    document = StepError("X", message, details).to_dict()
    assert 1 <= len(document["message"]) <= 500
    assert _stored_size(document.get("details", {})) <= 2048


def test_lone_surrogates_of_a_foreign_answer_are_replaced():
    """Lone surrogates are replaced, because neither Firestore nor the manifest can store them."""
    document = StepError("X", "a\ud800b", {"k\udfff": ["c\ud800"]}).to_dict()
    assert document == {"code": "X", "message": "a?b", "details": {"k?": ["c?"]}}


def test_details_that_are_no_json_become_text():
    """Details that are no JSON, such as a path or an exception, become text."""
    document = StepError("X", "m", {"path": Path("/etc"), "status": HTTPStatus.NOT_FOUND}).to_dict()
    assert json.loads(json.dumps(document))["details"] == {"path": "/etc", "status": 404}


def test_a_request_error_becomes_its_step_error():
    """A request error becomes a step error with the same code, message and details."""
    error = ValidationFailed("bad", field="timeframe").as_step_error()
    assert error == StepError("VALIDATION_FAILED", "bad", {"field": "timeframe"})


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "nothing"), ("a\n", r"'a\n'"), ("ä", r"'\xe4'"), (7, "7"), ("x" * 99, "'" + "x" * 78 + "…")],
)
def test_values_are_shown_short_and_without_control_characters(value, text):
    """Values in messages are short and have no control characters."""
    assert shown(value) == text


def test_a_value_nested_beyond_showing_is_shown_as_its_type():
    """A too deeply nested value is shown as its type."""
    nested: list[object] = []
    for _ in range(200_000):
        nested = [nested]
    try:
        assert shown(nested) == "list"
    finally:
        while nested:  # taken apart step by step: a destructor would recurse
            nested = nested.pop()  # type: ignore[assignment]
