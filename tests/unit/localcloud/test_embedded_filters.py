"""The filters of subscriptions, which the official emulator stores without effect."""

from __future__ import annotations

import pytest

from localcloud.grpc_server import Refused
from localcloud.pubsub.filters import parse_filter

MESSAGES = {
    "none": {},
    "b": {"a": "b"},
    "bb": {"a": "bb"},
    "c": {"c": "d"},
    "both": {"a": "b", "c": "d"},
    "quoted": {'k "x"/é': "ü\n"},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('attributes.a = "b"', {"b", "both"}),
        ('attributes.a="b"', {"b", "both"}),
        ('attributes.a != "b"', {"none", "bb", "c", "quoted"}),
        ("attributes:a", {"b", "bb", "both"}),
        ("NOT attributes:a", {"none", "c", "quoted"}),
        ("-attributes:a", {"none", "c", "quoted"}),
        ('hasPrefix(attributes.a, "b")', {"b", "bb", "both"}),
        ('attributes.a = "b" AND attributes.c = "d"', {"both"}),
        ('attributes.a = "bb" OR attributes.c = "d"', {"bb", "c", "both"}),
        ('NOT (attributes.a = "b" OR attributes:c)', {"none", "bb", "quoted"}),
        ('attributes:a AND NOT (attributes:c AND attributes.c = "d")', {"b", "bb"}),
        ('attributes:"k \\"x\\"/\\u00e9"', {"quoted"}),
        ('attributes."k \\"x\\"/\\xe9" = "\\374\\n"', {"quoted"}),
    ],
)
def test_a_filter_matches_by_attributes(text, expected):
    """A filter compares attributes; keys with other characters and values are quoted."""
    matches = parse_filter(text)
    assert {name for name, attributes in MESSAGES.items() if matches(attributes)} == expected


@pytest.mark.parametrize(
    "text",
    [
        "foo",
        "attributes",
        "attributes.a",
        "attributes.a = b",
        "attributes.a == 'b'",
        'attributes.a < "b"',
        'attributes.a = "b" AND',
        'attributes.a = "b" AND attributes:c OR attributes:d',
        'attributes.AND = "b"',
        'hasPrefix(attributes:a, "b")',
        '(attributes.a = "b"',
        'attributes.a = "b")',
        'message.attributes.a = "b"',
    ],
)
def test_a_malformed_filter_is_refused(text):
    """A malformed filter is refused with its text; AND beside OR needs parentheses."""
    with pytest.raises(Refused, match="Invalid filter: it is malformed") as refused:
        parse_filter(text)
    assert text in refused.value.message


def test_a_filter_has_at_most_256_bytes():
    """A filter of 256 bytes is allowed, a longer one is not."""
    text = f'attributes.a = "{"b" * 239}"'
    assert parse_filter(text)({"a": "b" * 239})
    with pytest.raises(Refused, match="256 bytes"):
        parse_filter(text + " ")


def test_no_filter_is_none():
    """Without a filter there is nothing to check."""
    assert parse_filter("") is None
