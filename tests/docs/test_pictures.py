"""The pictures of the documentation are drawn from their sources and agree with the code."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree as ET

import pytest

from daemon.handling.disposition import Disposition
from worker_chart_export.errors import ErrorCode
from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent, ReleaseIntent
from worker_chart_export.ledger.step_ledger import StepLedger

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs/pictures"
PAGE = ROOT / "docs/how-it-works.md"
DRAWN = ("message", "step")
OF_OTHER_PAGES = ("trace", "slow-provider")
SVG = "{http://www.w3.org/2000/svg}"


def texts_of(name):
    """Return the lines of text in a picture in the order in which they were drawn."""
    drawing = ET.parse(PICTURES / f"{name}.svg")  # noqa: S314 - our own file
    return [(text.text or "").replace("\u00a0", " ").strip() for text in drawing.iter(f"{SVG}text")]


def test_each_source_has_a_drawing_that_the_page_shows():
    """Each source has a drawing, no drawing is without a source, and the page shows it."""
    assert sorted(path.stem for path in PICTURES.glob("*.dot")) == sorted(DRAWN)
    assert sorted(path.stem for path in PICTURES.glob("*.svg")) == sorted([*DRAWN, *OF_OTHER_PAGES])
    shown = re.findall(r"!\[[^\]]{40,}\]\(pictures/(\w+)\.svg\)", PAGE.read_text("utf-8"))
    assert shown == list(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_is_up_to_date(name):
    """The drawing contains the hash of its source, which `make pictures` writes."""
    digest = hashlib.sha256((PICTURES / f"{name}.dot").read_bytes()).hexdigest()
    assert f"<!-- drawn from text with sha256 {digest} -->" in (PICTURES / f"{name}.svg").read_text("utf-8")


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_can_be_read_on_any_background(name):
    """A drawing has a white background and real text, and loads no other file."""
    source = (PICTURES / f"{name}.svg").read_text("utf-8")
    drawing = ET.fromstring(source)  # noqa: S314 - our own file
    assert next(drawing.iter(f"{SVG}polygon")).attrib["fill"] == "white"
    assert not re.search(r"<image|<script|@import|href=\"(?!#)|url\(", source)


@pytest.mark.parametrize(
    "text", [*(PICTURES / f"{name}.dot" for name in DRAWN), PAGE], ids=lambda path: path.name
)
def test_every_folder_and_file_that_is_named_exists(text):
    """Every path from the root or in the domain package exists."""
    named = set(
        re.findall(r"[\w./]*\w+\.py\b|\b[a-z_]{3,}/(?:[a-z_]+/)*(?=[<`,) ])", text.read_text("utf-8"))
    )
    assert len(named) > 0
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "worker_chart_export" / name).exists(), name


def test_the_states_are_those_of_the_code():
    """The picture names all states of the code; the only other word in capitals is an error code."""
    capitals = set(re.findall(r"\b[A-Z]{4,}(?:_[A-Z]+)*\b", " ".join(texts_of("step"))))
    assert capitals == {*StepStatus, ErrorCode.CRASH_LOOP}


def test_the_actions_of_workers_are_the_intents_of_the_ledger():
    """The picture's actions are the ledger's intents; `adopt` is a method, and a take-over is a claim."""
    text = (PICTURES / "step.dot").read_text("utf-8")
    done = set(re.findall(r"label=<[^<]*<b>([\w-]+)</b>[:,>]", text.replace("<br", ">"))) - {"RUNNING"}
    intents = {intent.name for intent in (ClaimIntent, FinalizeIntent, ReleaseIntent)}
    assert done == intents | {StepLedger.adopt.__name__, "take-over"}


def test_the_ways_out_are_the_dispositions():
    """The picture and the page's table have all four dispositions."""
    names = {member.__name__ for member in get_args(Disposition)}
    shown = {
        word for line in texts_of("message") for word in re.findall(r"\b(?:Ack|Nack|Defer|Reject)\b", line)
    }
    assert shown == names
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)) == names


def test_the_stages_are_in_the_order_of_the_pipeline():
    """The stages have the order of the docstring of `pipeline.py`, from top to bottom."""
    drawing = ET.parse(PICTURES / "message.svg")  # noqa: S314 - our own file
    stages = ("claim", "charts", "manifest", "finalize")
    heights = {text.text: float(text.attrib["y"]) for text in drawing.iter(f"{SVG}text")}
    assert all(heights[before] < heights[after] for before, after in pairwise(stages))
    says = (ROOT / "worker_chart_export/execution/pipeline.py").read_text("utf-8").split('"""')[1]
    places = [re.search(rf"\b{stage}\b", says, re.IGNORECASE) for stage in ("claim", "charts", "manifest")]
    assert all(places)
    assert [place.start() for place in places] == sorted(place.start() for place in places)


def test_the_page_names_settings_as_they_are_with_their_defaults():
    """Every `NAME` (number) in the page is a setting and its default."""
    from daemon.settings import Settings  # noqa: PLC0415 - slow to load, and used only here

    named = re.findall(r"`([A-Z_]{6,})`(?: \((\d+)\))?", PAGE.read_text("utf-8"))
    settings = {name.upper(): field for name, field in Settings.model_fields.items()}
    known = {name: default for name, default in named if name in settings}
    assert {name for name, _ in named} - set(known) <= {*ErrorCode}
    assert len(known) >= 6
    for name, default in named:
        if default:
            assert settings[name].default == int(default), name
