"""A key is redacted in each form in which a server may write it."""

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
def test_no_form_is_left(spelling):
    """A key is redacted as it is, escaped, or broken over lines."""
    assert redacted(f"bad key {spelling}!", KEY) == "bad key (key)!"


def test_other_text_stays():
    """Text without a key stays unchanged."""
    assert redacted("Invalid Symbol", KEY) == "Invalid Symbol"
