"""Lists of objects: prefixes, folders, offsets, globs, pages."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.serves("objects.list")

NAMES = ["charts/a/1.png", "charts/a/2.png", "charts/b/", "charts/b/1.png", "charts/é", "other"]


@pytest.fixture
def charts(bucket):
    """Return a bucket with some objects."""
    for name in NAMES:
        bucket.blob(name).upload_from_string(b"x")
    return bucket


def names(listing):
    """Return the names of the objects of a listing."""
    return [blob.name for blob in listing]


@pytest.mark.serves(
    "objects.list", "prefix", "delimiter", "maxResults", "pageToken", "includeTrailingDelimiter"
)
def test_listing_by_prefix_delimiter_and_page(charts):
    """A listing returns each name once in UTF-8 order, with every page size."""
    assert names(charts.list_blobs(prefix="charts/a/")) == NAMES[:2]
    assert names(charts.list_blobs(page_size=2)) == NAMES
    assert names(charts.list_blobs(max_results=3)) == NAMES[:3]
    for size in (1, 2, 10):
        folders = charts.list_blobs(prefix="charts/", delimiter="/", page_size=size)
        assert names(folders) == ["charts/é"]
        assert folders.prefixes == {"charts/a/", "charts/b/"}
    folders = charts.list_blobs(prefix="charts/", delimiter="/", include_trailing_delimiter=True)
    assert names(folders) == ["charts/b/", "charts/é"]
    assert folders.prefixes == {"charts/a/", "charts/b/"}


@pytest.mark.serves("startOffset", "endOffset")
def test_offsets(charts):
    """A listing starts with the name of its start offset, and ends before that of its end offset."""
    assert names(charts.list_blobs(start_offset="charts/a/2.png", end_offset="charts/é")) == NAMES[1:4]
    assert names(charts.list_blobs(start_offset="charts/c", page_size=1)) == NAMES[4:]


GLOBS = {
    "charts/*": ["charts/é"],
    "charts/**.png": ["charts/a/1.png", "charts/a/2.png", "charts/b/1.png"],
    "**/1.png": ["charts/a/1.png", "charts/b/1.png"],
    "**/other": ["other"],
    "charts/?/[!2].png": ["charts/a/1.png", "charts/b/1.png"],
    "{other,charts/{a,x}/2*}": ["charts/a/2.png", "other"],
    "charts/a\\/1.png": ["charts/a/1.png"],
    "o": [],
}


@pytest.mark.parametrize("glob", GLOBS)
@pytest.mark.serves("matchGlob")
def test_globs(charts, glob):
    """Stars, double stars, question marks, brackets and braces match names."""
    assert names(charts.list_blobs(match_glob=glob)) == GLOBS[glob]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maxResults", "x"),
        ("maxResults", "0"),
        ("maxResults", "9" * 5000),
        ("pageToken", "%"),
        ("pageToken", "WyJhIiwxZTk5OV0="),
        ("matchGlob", "{a"),
        ("matchGlob", "[a"),
        ("matchGlob", "a" * 1025),
        ("versions", "yes"),
        ("projection", "some"),
        ("fields", "a(" * 3000),
    ],
)
def test_malformed_parameters_are_refused(bucket, http, name, value):
    """A malformed parameter gives 400 with its name."""
    error = http.get(f"/storage/v1/b/{bucket.name}/o", params={name: value}).json()["error"]
    assert (error["code"], error["errors"][0]["location"]) == (400, name)
