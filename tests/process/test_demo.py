"""The demo as a real process: the main job without a cloud, and its output folder."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from tests.support.page.html_page import read_page
from tests.support.process.commands import run_command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.page.html_page import Element

ROOT_FILES = {"index.html", ".worker-chart-export-demo"}


@dataclass(frozen=True)
class TwoDemos:
    """Two demos in one folder with a foreign file. Only the second has failures.

    Attributes:
        folder: The folder after the second demo.
        output: The second demo's output.
        page: The second demo's gallery.
        first_files: The files after the first demo.
        first_page: The first demo's gallery.
    """

    folder: Path
    output: str
    page: Element
    first_files: set[str]
    first_page: Element


def files_in(folder):
    """Return the names of all files below the folder, without the markers of runs."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in files if not name.endswith("/.worker-chart-export-demo")}


@pytest.fixture(scope="module")
def two_demos(tmp_path_factory):
    """Run two demos; see `TwoDemos`."""
    folder = tmp_path_factory.mktemp("gallery")
    (folder / "notes.txt").write_text("mine")
    _demo(folder)
    first_files, first_page = files_in(folder), read_page((folder / "index.html").read_text())
    output = _demo(folder, "--with-failures")
    page = read_page((folder / "index.html").read_text())
    return TwoDemos(folder=folder, output=output, page=page, first_files=first_files, first_page=first_page)


def _demo(folder, *options):
    done = run_command("demo", *options, "--output", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def manifests(folder):
    """Return the manifests of a demo."""
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("manifest.json"))]


def test_demo_makes_a_gallery_of_forty_charts(two_demos):
    """One command does the whole main job without a cloud and makes 40 charts and a gallery."""
    pictures = sorted(two_demos.folder.rglob("*.png"))
    assert len(pictures) == 40
    assert len(manifests(two_demos.folder)) == 5
    source = (two_demos.folder / "index.html").read_text()
    assert source.count("data:image/png;base64,") == 40
    assert all(str(picture.relative_to(two_demos.folder)) in source for picture in pictures)
    assert not re.search(r"https?:", re.sub(r"data:[^\"]*", "", source))
    assert two_demos.output.count("SUCCEEDED") >= 5


def test_without_options_no_step_of_the_demo_fails(two_demos):
    """Without options all five steps of eight charts succeed."""
    sections = two_demos.first_page.all("section", **{"class": "step"})
    assert ["SUCCEEDED" in section.one("header").text for section in sections] == [True] * 5
    assert "40 charts from 5 steps" in two_demos.first_page.one("header", **{"class": "page"}).text


def test_the_folder_holds_the_files_of_the_last_demo_and_foreign_files(two_demos):
    """The folder has the last demo's files; the earlier ones are removed, and foreign files are named."""
    files = files_in(two_demos.folder)
    assert files & two_demos.first_files == {"notes.txt", *ROOT_FILES}
    assert files - ROOT_FILES - {"notes.txt"} == {
        unquote(link.attributes["href"])
        for link in two_demos.page.all("a")
        if link.attributes.get("href", "#")[0] != "#"
    }
    assert f"Other files in {two_demos.folder} were not changed: notes.txt" in " ".join(
        two_demos.output.split()
    )


def test_the_gallery_agrees_with_the_manifests(two_demos):
    """The gallery has the manifests' charts, and each missing chart with its reason."""
    alts, reasons = set(), set()
    for manifest in manifests(two_demos.folder):
        title = f"{manifest['symbol']} {manifest['timeframe']}"
        alts |= {
            f"{title} chart: {item['kind']}, template {item['chartTemplateId']}" for item in manifest["items"]
        }
        reasons |= {failure["error"]["message"] for failure in manifest.get("failures", ())}
    pictures = [
        link.one("img") for link in two_demos.page.one("main").all("a") if "data-title" in link.attributes
    ]
    assert len(pictures) == len(alts) == 40
    assert {picture.attributes["alt"] for picture in pictures} == alts
    assert len(reasons) == 1
    expected = " ".join(item.text for item in two_demos.page.all("ul")[0].all("li"))
    assert reasons.pop() in expected


def test_the_gallery_shows_failures_with_code_and_reason(two_demos):
    """The gallery and its summary have the failed step and the missing chart with their reasons."""
    (failed,) = [
        section
        for section in two_demos.page.all("section", **{"class": "step"})
        if "FAILED" in section.one("header").text
    ]
    assert failed.one("h3").text == "IBM 13q"
    assert "VALIDATION_FAILED" in failed.one("ul").text
    assert "got '13q'" in failed.one("ul").text
    glance = two_demos.page.one("section", **{"aria-labelledby": "glance"})
    assert [row.one("div", **{"class": "figure"}).text for row in glance.one("dl").children][:3] == [
        "6",
        "40",
        "2",
    ]
    assert "Every step ended as expected" in two_demos.page.one("header", **{"class": "page"}).text


def test_the_gallery_counts_what_the_daemon_did(two_demos):
    """The gallery counts four settled messages and six steps from the daemon's log."""
    stations = two_demos.page.one("ol", **{"class": "way"}).all("li")
    counts = {item.one("span").text: int(item.one("strong").text) for item in stations}
    assert counts == {
        "messages published": 4,
        "received": 4,
        "steps claimed": 6,
        "charts stored": 40,
        "manifests written": 5,
        "steps finalized": 6,
        "messages settled": 4,
    }
    assert stations[-1].one("small").text == "4 ack"


def test_demo_leaves_a_page_alone_that_no_demo_made(tmp_path):
    """A page that no demo wrote ends the command at once with exit code 2."""
    (tmp_path / "index.html").write_text("<h1>My site</h1>")
    done = run_command("demo", "--output", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --output: {tmp_path / 'index.html'} was not made by a demo, or changed since;"
        " expected a folder without it\n"
    )
    assert (tmp_path / "index.html").read_text() == "<h1>My site</h1>"


def test_demo_ends_with_its_daemon(tmp_path):
    """When its daemon dies the demo ends and prints its exit and its last lines."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if sys.orig_argv[-2:] == ['-m', 'daemon']:\n"
        "    print('no disk left', flush=True)\n"
        "    os._exit(7)\n"
    )
    started = time.monotonic()
    done = run_command("demo", "--output", str(tmp_path / "out"), environment={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1, done.stderr
    assert "The daemon ended with exit code 7" in done.stdout
    assert "no disk left" in done.stdout
    assert time.monotonic() - started < 40


@pytest.mark.parametrize("name", ["PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"])
def test_demo_checks_first_that_the_named_emulators_answer(tmp_path, name):
    """The demo first checks that the emulators answer; Google's clients would try for a minute."""
    value = "http://localhost:1" if name.startswith("STORAGE") else "localhost:1"
    done = run_command("demo", "--output", str(tmp_path), environment={name: value})
    assert done.returncode == 3
    assert done.stderr == f"error: {name}: nothing answers at localhost:1\n"


def test_demo_refuses_an_emulator_without_an_address(tmp_path):
    """An emulator variable without an address is a wrong setting."""
    done = run_command("demo", "--output", str(tmp_path), environment={"PUBSUB_EMULATOR_HOST": "nowhere"})
    assert done.returncode == 2
    assert done.stderr == "error: PUBSUB_EMULATOR_HOST: expected host:port, got 'nowhere'\n"


def test_demo_refuses_an_output_that_cant_be_a_folder(tmp_path):
    """An output path that can't be a folder ends the demo with one sentence and exit code 2."""
    (tmp_path / "file").touch()
    done = run_command("demo", "--output", str(tmp_path / "file"))
    assert done.returncode == 2
    assert "--output" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.official
def test_demo_uses_the_official_emulators_that_the_environment_names(official, tmp_path):
    """The demo uses the official Pub/Sub and Firestore emulators of the environment."""
    done = run_command("demo", "--output", str(tmp_path), environment=official.environment(), timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert official.firestore in done.stdout
    assert len(list(tmp_path.rglob("*.png"))) == 40


KEY_CODES = {"Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}


@pytest.fixture
def tab(two_demos, chromium):
    """Open the gallery in a browser; check that its console has no errors."""
    with chromium.tab() as opened:
        opened.open((two_demos.folder / "index.html").as_uri())
        yield opened
        assert opened.complaints() == []


def press(tab, key):
    """Press a key as a person would."""
    known = {"key": key, "code": key, "windowsVirtualKeyCode": KEY_CODES[key]}
    text = {"text": "\r"} if key == "Enter" else {}
    tab.ask("Input.dispatchKeyEvent", type="keyDown", **known, **text)
    tab.ask("Input.dispatchKeyEvent", type="keyUp", **known)


def viewed(tab):
    """Return the viewer's place and chart; None when it is closed."""
    return tab.run(
        "viewer.open ? [part('place').textContent, part('image').alt, part('image').naturalWidth] : null"
    )


def test_the_viewer_is_used_by_keys(two_demos, tab):
    """Enter opens a chart at full size, arrows move, Escape returns to the last chart."""
    pictures = [link.one("img") for link in two_demos.page.all("a") if "data-title" in link.attributes]
    alts = [picture.attributes["alt"] for picture in pictures]
    tab.run("links[3].focus()")
    press(tab, "Enter")
    tab.wait_for("viewer.open && part('image').naturalWidth")
    assert viewed(tab) == ["4 of 40", alts[3], 800]
    for key, number in (("ArrowRight", 5), ("End", 40), ("ArrowRight", 1), ("ArrowLeft", 40), ("Home", 1)):
        press(tab, key)
        assert viewed(tab)[:2] == [f"{number} of 40", alts[number - 1]]
    press(tab, "Escape")
    tab.wait_for("!viewer.open && document.activeElement === links[0]")


def test_the_viewer_is_used_by_buttons(tab):
    """The viewer has buttons for next, previous, full size and close, and a link to the file."""
    tab.run("links[0].click()")
    tab.run("part('next').click()")
    assert viewed(tab)[0] == "2 of 40"
    assert tab.run("part('file').href === links[1].href")
    tab.wait_for("part('image').naturalWidth")
    full = "part('image').getBoundingClientRect().width"
    tab.run("viewer.classList.contains('fit') || part('size').click()")
    assert tab.run(full) > 800
    tab.run("part('size').click()")
    assert tab.run(full) == 800
    assert tab.run("part('size').getAttribute('aria-pressed')") == "false"
    tab.run("part('close').click()")
    assert viewed(tab) is None


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_gallery_fits_its_screen_and_sends_no_requests(tab, width, dark):
    """The gallery fits the screen, follows the colour scheme and requests only itself."""
    tab.look_like(width=width, height=844, dark=dark)
    assert tab.run("document.documentElement.scrollWidth") == width
    assert tab.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(14, 18, 22)" if dark else "rgb(244, 245, 247)"
    )
    narrowest = tab.run("Math.min(...[...document.querySelectorAll('figure')].map(it => it.clientWidth))")
    assert narrowest >= min(500, width - 20)
    assert {url.partition(":")[0] for url in tab.requests()} <= {"file", "data"}
    assert [url for url in tab.requests() if url.startswith("file:")] == [tab.run("location.href")]
