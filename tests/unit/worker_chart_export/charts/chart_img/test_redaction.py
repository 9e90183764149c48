"""A key is redacted out of words in each spelling that a server may give it."""

from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest

from worker_chart_export.charts.chart_img.redaction import redacted

KEY = 's3c/ret+"k<e>y&\\1'


@pytest.mark.parametrize(
    "spelling",
    [
        KEY,
        KEY.upper(),
        json.dumps(KEY)[1:-1],
        html.escape(KEY),
        quote(KEY),
        quote(KEY, safe=""),
        quote(KEY, safe="").lower(),
        "\n".join([KEY[:4], KEY[4:9], KEY[9:]]),
        " ".join(KEY),
    ],
)
def test_no_spelling_is_left(spelling):
    """As it is, escaped, or broken over lines."""
    assert redacted(f"bad key {spelling}!", KEY) == "bad key (key)!"


def test_other_words_stay():
    """They hold no key."""
    assert redacted("Invalid Symbol", KEY) == "Invalid Symbol"
