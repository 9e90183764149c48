"""The page on tracing agrees with the code."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from daemon.tracing.spans import attribute_of
from worker_chart_export.observability.observers import Stage

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tracing.md").read_text("utf-8")
PICTURE = ROOT / "docs/pictures/trace.svg"
SVG = "{http://www.w3.org/2000/svg}"
SPANS = {"process SUBSCRIPTION" if stage is Stage.DELIVERY else stage.value for stage in Stage}


def test_every_span_is_named_and_no_other():
    """The table of spans has every span and no other."""
    table = PAGE.split("| span | kind |")[1].split("\n\n")[0]
    named = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert set(named) == SPANS | {"publish TOPIC"}
    assert len(named) == len(SPANS) + 1


@pytest.mark.parametrize(
    "name",
    [
        "runId",
        "stepId",
        "chartTemplateId",
        "attempt",
        "requested",
        "symbol",
        "timeframe",
        "provider",
        "sizeBytes",
        "takenOver",
        "formerOwner",
        "disposition",
        "accountId",
        "callNumber",
        "outcome",
        "durationMs",
    ],
)
def test_every_attribute_is_named(name):
    """The page has the last part of the name of every attribute."""
    assert f"`{attribute_of(name).removeprefix('chart_export.')}`" in PAGE


def test_the_picture_shows_a_whole_trace():
    """The picture shows all spans except the release, as text on a white background, without files."""
    drawing = ET.parse(PICTURE)  # noqa: S314 - our own file
    message = {(text.text or "").split(" ")[0] for text in drawing.iter(f"{SVG}text")}
    assert message >= {name.split(" ")[0] for name in SPANS} - {"release"} | {"publish"}
    assert next(drawing.iter(f"{SVG}polygon")).attrib["fill"] == "white"
    source = PICTURE.read_text("utf-8")
    assert not re.search(r"<image|<script|@import|href=|url\(", source)
    assert re.search(r"!\[[^\]]{40,}\]\(pictures/trace\.svg\)", PAGE)
