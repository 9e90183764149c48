"""Links that open objects in a browser."""

from __future__ import annotations

import pytest

from worker_chart_export.outputs.links import browser_url

GOOGLE = "https://storage.cloud.google.com"


@pytest.mark.parametrize(
    ("uri", "emulator", "url"),
    [
        ("gs://b/a b/c:1", None, f"{GOOGLE}/b/a%20b/c%3A1"),
        ("gs://b/a/c", "http://127.0.0.1:9/", "http://127.0.0.1:9/storage/v1/b/b/o/a%2Fc?alt=media"),
        ("gs://b/a", "localhost:9", "http://localhost:9/storage/v1/b/b/o/a?alt=media"),
        ("gs://b/a", "https://PROXY.EXAMPLE.X//", "https://PROXY.EXAMPLE.X/storage/v1/b/b/o/a?alt=media"),
        ("gs://b/\ud800\x1b", None, f"{GOOGLE}/b/%3F%1B"),
        ("gs://b", None, None),
        ("gs://b/", None, None),
        ("gs:///a", None, None),
        ("gs://", None, None),
        ("b/a", None, None),
        ("http://evil/x", None, None),
    ],
)
def test_a_link_leads_to_the_object_and_nowhere_else(uri, emulator, url):
    """A link goes to the object: Google's page for signed-in users, or the emulator."""
    assert browser_url(uri, emulator=emulator) == url
