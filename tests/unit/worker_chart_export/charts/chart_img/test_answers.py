"""The classification of Chart-IMG's responses: its documented errors and broken responses."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.chart_img.answers import ANSWERS
from tests.support.fakes import png_bytes
from worker_chart_export.charts.chart_img.answers import (
    Answer,
    Meaning,
    classify_answer,
    parse_error_body,
    parse_retry_after,
)
from worker_chart_export.errors import ChartTooLarge

MEANINGS = {
    "bad_request": Meaning.REFUSED,
    "invalid_request": Meaning.BAD_KEY,
    "forbidden": Meaning.BAD_KEY,
    "over_resolution": Meaning.OVER_PLAN,
    "over_parameters": Meaning.OVER_PLAN,
    "not_found": Meaning.REFUSED,
    "session_disconnected": Meaning.REFUSED,
    "invalid_fields": Meaning.REFUSED,
    "invalid_symbol": Meaning.REFUSED,
    "invalid_interval": Meaning.REFUSED,
    "too_early": Meaning.TRANSIENT,
    "too_many_requests": Meaning.TOO_FAST,
    "limit_exceeded": Meaning.EXHAUSTED,
    "limit_exceeded_200": Meaning.EXHAUSTED,
    "server_error": Meaning.TRANSIENT,
    "bad_gateway": Meaning.TRANSIENT,
    "unavailable": Meaning.TRANSIENT,
    "timeout": Meaning.TRANSIENT,
    "gateway_timeout": Meaning.TRANSIENT,
    "html": Meaning.TRANSIENT,
    "jpeg": Meaning.TRANSIENT,
    "truncated": Meaning.TRANSIENT,
    "wrong_size": Meaning.TRANSIENT,
    "empty": Meaning.TRANSIENT,
    "line_end_after_picture": Meaning.CHART,
}

RECEIVED = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
LATER = "Wed, 21 Oct 2026 07:28:30 GMT"


def _classify(status, body, **changes):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return classify_answer(status, body, **{"width": 800, "height": 600, "max_bytes": 262144} | changes)


@pytest.mark.parametrize("name", sorted(ANSWERS.keys() - {"too_large"}))
def test_each_scripted_answer_has_its_meaning(name):
    """Each scripted response has its classification."""
    answer = _classify(ANSWERS[name].status, ANSWERS[name].body)
    assert answer.meaning is MEANINGS[name]
    assert answer.status == ANSWERS[name].status


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (408, {"message": "Request Timeout"}, Meaning.TRANSIENT),
        (501, {"message": "?"}, Meaning.TRANSIENT),
        (522, b"<html>", Meaning.TRANSIENT),
        (302, b"", Meaning.REFUSED),
        (204, b"", Meaning.REFUSED),
        (413, {"message": "Payload Too Large"}, Meaning.REFUSED),
        (403, b"\n<html>403</html>", Meaning.TRANSIENT),
        (403, b"", Meaning.BAD_KEY),
        (403, {"message": "Missing Authentication Token"}, Meaning.BAD_KEY),
        (401, b"", Meaning.BAD_KEY),
        (401, b"<html>401</html>", Meaning.BAD_KEY),
        (429, b"", Meaning.TOO_FAST),
        (429, {"error": "Rate limit exceeded"}, Meaning.TOO_FAST),
        (429, {"error": "Request rate limit exceeded"}, Meaning.TOO_FAST),
        (429, {"error": "Rate-limit exceeded"}, Meaning.TOO_FAST),
        (429, {"error": "Limit exceeded: 1 request per second"}, Meaning.TOO_FAST),
        (429, {"error": "Per-second limit exceeded"}, Meaning.TOO_FAST),
        (429, {"error": "Limit Exceeded"}, Meaning.EXHAUSTED),
        (429, {"errors": [{"msg": "Daily Limit Exceeded"}]}, Meaning.EXHAUSTED),
        (403, {"message": "Limit Exceeded"}, Meaning.EXHAUSTED),
        (403, {"message": " limit exceeded. "}, Meaning.EXHAUSTED),
        (403, {"message": "Parameter limit exceeded (3)"}, Meaning.BAD_KEY),
        (400, b"<html>Header size limit exceeded</html>", Meaning.REFUSED),
        (413, {"message": "Request body size limit exceeded"}, Meaning.REFUSED),
        (422, {"message": "Studies limit exceeded"}, Meaning.REFUSED),
        (422, [{"msg": "Limit exceeded", "param": "studies"}], Meaning.REFUSED),
        (500, {"message": "Limit Exceeded"}, Meaning.TRANSIENT),
        (200, {"message": "ok"}, Meaning.TRANSIENT),
        (500, png_bytes(), Meaning.TRANSIENT),
    ],
)
def test_answers_that_are_not_documented_have_a_meaning_too(status, body, meaning):
    """Undocumented responses get the closest classification."""
    assert _classify(status, body).meaning is meaning


def test_a_complete_picture_of_the_requested_size_is_the_chart():
    """A complete picture of the requested size is the chart, without what follows it."""
    for more in (b"", b"\n", b"x" * 9):
        answer = _classify(200, png_bytes() + more)
        assert (answer.meaning, answer.png) == (Meaning.CHART, png_bytes())


def test_a_wrong_picture_is_described_as_the_error():
    """A wrong picture is described in place of the server's message."""
    assert "cut off" in _classify(200, png_bytes()[:-5]).message
    assert "640x480" in _classify(200, png_bytes(640, 480)).message


def test_a_whole_picture_that_readers_refuse_is_an_error_of_its_own():
    """A complete picture that readers refuse has its own error, because it would come again."""
    with pytest.raises(ChartTooLarge):
        _classify(200, png_bytes(padding=300_000))


@pytest.mark.parametrize(
    ("body", "is_complete"),
    [
        (png_bytes(640, 480), True),
        (png_bytes(640, 480) + b"\n", True),
        (png_bytes()[:-5], False),
        (b"\x89PNG\r\n\x1a\n", False),
        (b"\x89PN", False),
        (b"", False),
        (b"\xff\xd8\xff\xe0 a picture \xff\xd9", True),
        (b"<!doctype html>", True),
        (b'{"message": "Welcome"}', True),
    ],
)
def test_a_complete_answer_without_a_chart_differs_from_a_broken_one(body, is_complete):
    """A complete response without a chart differs from a broken one, after which a retry can help."""
    assert _classify(200, body).is_complete is is_complete


def test_only_status_200_is_a_complete_answer():
    """Only status 200 is a complete response without a chart."""
    assert not _classify(500, b"<html>500</html>").is_complete


@pytest.mark.parametrize(
    ("answer", "keeps"),
    [
        (Answer(meaning=Meaning.TOO_FAST, status=429), True),
        (Answer(meaning=Meaning.TRANSIENT, status=0, was_sent=False), True),
        (Answer(meaning=Meaning.TRANSIENT, status=0, was_sent=True), False),
        (Answer(meaning=Meaning.TRANSIENT, status=500), False),
        (Answer(meaning=Meaning.CHART, status=200), False),
    ],
)
def test_a_count_is_kept_where_nothing_can_have_been_paid(answer, keeps):
    """A count is kept for the next call where nothing was paid."""
    assert answer.keeps_count is keeps


@pytest.mark.parametrize("name", sorted(MEANINGS))
def test_transient_too_fast_and_refusing_answers_prove_no_key(name):
    """Only transient, too-fast and refusing responses do not show that the key is valid."""
    answer = _classify(ANSWERS[name].status, ANSWERS[name].body)
    assert answer.proves_key is (MEANINGS[name] not in (Meaning.TRANSIENT, Meaning.TOO_FAST, Meaning.BAD_KEY))


class TestErrorBody:
    """The message and the parameters of an error body of any shape."""

    @pytest.mark.parametrize(
        ("body", "message", "params"),
        [
            ({"message": "Forbidden"}, "Forbidden", ()),
            ({"error": "Bad"}, "Bad", ()),
            ({"msg": "Bad"}, "Bad", ()),
            (
                {"errors": [{"msg": "Invalid", "param": "interval"}, {"message": "x"}]},
                "interval: Invalid; x",
                ("interval",),
            ),
            (
                [{"value": 1, "msg": "Invalid value", "param": "width", "location": "body"}],
                "width: Invalid value",
                ("width",),
            ),
            (
                [
                    {"msg": "a", "param": "width"},
                    {"error": "b", "param": "width"},
                    {"message": "c", "param": "theme"},
                ],
                "width: a; width: b; theme: c",
                ("width", "theme"),
            ),
            ("plain", "plain", ()),
            (7, "7", ()),
            ({}, "no message", ()),
            ([], "no message", ()),
            ({"message": "a\n b"}, "a b", ()),
            ({"message": None, "error": "b"}, "b", ()),
            ({"message": "Invalid Request", "errors": []}, "Invalid Request", ()),
            ({"error": {"message": "inner"}}, "inner", ()),
            ({"error": {"errors": [{"msg": "a", "param": "b"}]}}, "b: a", ("b",)),
        ],
    )
    def test_known_shapes(self, body, message, params):
        """The message is read from `message`, `error`, `errors[]` or an array; a 422 names its parameters."""
        assert parse_error_body(json.dumps(body).encode()) == (message, params)

    @pytest.mark.parametrize(
        ("body", "message"),
        [(b"", "no message"), (b"<h1>502</h1>", "<h1>502</h1>"), (b"\xff\xfe", "\ufffd\ufffd")],
    )
    def test_bodies_that_are_no_json(self, body, message):
        """Of a body that is no JSON the message is the start of its text."""
        assert parse_error_body(body) == (message, ())

    @given(st.binary(max_size=300) | st.text().map(str.encode))
    def test_any_body_has_a_message(self, body):
        """Any body gives a message of 1 to 300 characters."""
        assert 1 <= len(parse_error_body(body)[0]) <= 300

    def test_a_deeply_nested_body_has_a_message(self):
        """A deeply nested body gives a message, because the parser's recursion error is caught."""
        assert parse_error_body(b"[" * 100_000)[0].startswith("[[[")

    def test_many_errors_are_cut(self):
        """Of many errors ten are shown."""
        body = [{"msg": "m", "param": f"p{number}"} for number in range(50)]
        assert len(parse_error_body(json.dumps(body).encode())[1]) == 10

    @pytest.mark.parametrize("before", range(280, 301))
    def test_a_message_is_redacted_before_it_is_cut(self, before):
        """A message is redacted before it is cut, so that no part of a key is left at its end."""
        body = json.dumps({"message": "x" * before + "s3cret-key"}).encode()
        for text in (body, body.removeprefix(b"{")):
            message, _ = parse_error_body(text, lambda text: text.replace("s3cret-key", "(key)"))
            assert "s3" not in message

    @pytest.mark.parametrize("before", range(9980, 10_001))
    def test_a_body_that_is_no_json_is_redacted_before_it_is_cut(self, before):
        """A text body is redacted before it is cut, so that no part of a key is left at its end."""
        body = b"<html>" + b" " * (before - 6) + b"s3cret-key</html>"
        message, _ = parse_error_body(body, lambda text: text.replace("s3cret-key", "(key)"))
        assert "s3" not in message

    def test_parameters_are_redacted_too(self):
        """Parameters are redacted too, because a server may put the key there."""
        body = json.dumps([{"msg": "m", "param": "s3cret-key"}]).encode()
        assert parse_error_body(body, lambda text: text.replace("s3cret-key", "(key)")) == (
            "(key): m",
            ("(key)",),
        )


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0", 0.0), (" 1.5 ", 1.5), ("99999999999", 99999999999.0), ("9" * 400, float("inf"))]
    + [(text, None) for text in ("", "-1", "inf", "nan", "1e5", "0x10", "3, 5", "soon", "\u0661")],
)
def test_retry_after_in_seconds(header, seconds):
    """`Retry-After` accepts only digits, not all that Python parses as a number."""
    assert parse_retry_after(header, date=None, now=RECEIVED) == seconds


@pytest.mark.parametrize(
    ("header", "date", "seconds"),
    [
        (LATER, None, 30.0),
        (LATER, "Wed, 21 Oct 2026 07:28:20 GMT", 10.0),
        (LATER, "never", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", None, 0.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", None, 30.0),
        ("Wed, 99 Oct 2026 07:28:30 GMT", None, None),
    ],
)
def test_a_retry_after_date_is_counted_from_the_answer_s_own_date(header, date, seconds):
    """A `Retry-After` date counts from the response's own `Date`, because our clock may differ."""
    assert parse_retry_after(header, date=date, now=RECEIVED) == seconds
