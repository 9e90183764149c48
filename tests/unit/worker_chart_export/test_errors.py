"""Errors as they are stored."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker_chart_export import errors
from worker_chart_export.errors import ErrorCode, RequestError, StepError, ValidationFailed, shown

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
    """No code more, none less."""
    assert set(ErrorCode) == CONTRACT_CODES


def test_each_kind_of_request_error_has_a_code_of_its_own():
    """Readers could not distinguish two kinds with one code."""
    codes = [kind.code for kind in RequestError.__subclasses__()]
    assert len(set(codes)) == len(codes) == len(CONTRACT_CODES - {"CRASH_LOOP"})


def test_every_error_stands_in_the_tree_of_the_docstring():
    """The module's docstring is the list people read."""
    kinds = [
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    assert [name for name in kinds if name not in str(errors.__doc__)] == []


def test_a_message_is_cut_at_500_characters():
    """With an ellipsis that says so."""
    message = StepError("X", "é" * 600).to_dict()["message"]
    assert message == "é" * 499 + "…"


def test_a_message_of_500_characters_is_whole():
    """The limit itself fits."""
    assert StepError("X", "é" * 500).to_dict()["message"] == "é" * 500


def test_a_message_is_one_line():
    """White space of any kind becomes one space."""
    assert StepError("X", " a\n\tb \r\n c ").to_dict()["message"] == "a b c"


def test_an_empty_message_says_so():
    """The manifest's schema wants at least a character."""
    assert StepError("X", " \n").to_dict()["message"] == "no message"


def test_without_details_there_is_no_key_for_them():
    """An empty map says nothing."""
    assert StepError("X", "m", {}).to_dict() == {"code": "X", "message": "m"}


def test_a_long_detail_of_multibyte_text_is_shortened_not_dropped():
    """2 KiB are counted as they are stored, in UTF-8."""
    details = StepError("X", "m", {"apiMessage": "请求无效" * 1000}).to_dict()["details"]
    assert details["apiMessage"].startswith("请求无效请求无效")
    assert _stored_size(details) <= 2048


def test_details_keep_the_first_that_fit():
    """What comes first matters most."""
    details = StepError("X", "m", {"a": "x" * 400, **{f"k{i}": "y" * 400 for i in range(9)}}).to_dict()[
        "details"
    ]
    assert list(details) == ["a", "k0", "k1", "k2"]


@settings(max_examples=60)
@given(st.text(), st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_whatever_it_is_given_a_stored_error_is_small_and_storable(message, details):
    """500 characters, 2 KiB, and nothing that UTF-8 can't hold."""
    document = StepError("X", message, details).to_dict()
    assert 1 <= len(document["message"]) <= 500
    assert _stored_size(document.get("details", {})) <= 2048


def test_lone_surrogates_of_a_foreign_answer_are_replaced():
    """Neither Firestore nor the manifest could store them, and the step would stay RUNNING."""
    document = StepError("X", "a\ud800b", {"k\udfff": ["c\ud800"]}).to_dict()
    assert document == {"code": "X", "message": "a?b", "details": {"k?": ["c?"]}}


def test_details_that_are_no_json_become_text():
    """A path or an exception becomes its text."""
    document = StepError("X", "m", {"path": Path("/etc"), "status": HTTPStatus.NOT_FOUND}).to_dict()
    assert json.loads(json.dumps(document))["details"] == {"path": "/etc", "status": 404}


def test_a_request_error_becomes_its_step_error():
    """Code, message and details go over."""
    error = ValidationFailed("bad", field="timeframe").as_step_error()
    assert error == StepError("VALIDATION_FAILED", "bad", {"field": "timeframe"})


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "nothing"), ("a\n", r"'a\n'"), ("ä", r"'\xe4'"), (7, "7"), ("x" * 99, "'" + "x" * 78 + "…")],
)
def test_values_are_shown_short_and_without_control_characters(value, text):
    """As an error message may quote them."""
    assert shown(value) == text


def test_a_value_nested_beyond_showing_is_shown_as_its_type():
    """Nothing a message holds may break the sentence about it."""
    nested: list[object] = []
    for _ in range(200_000):
        nested = [nested]
    try:
        assert shown(nested) == "list"
    finally:
        while nested:  # taken apart step by step: a destructor would recurse
            nested = nested.pop()  # type: ignore[assignment]
