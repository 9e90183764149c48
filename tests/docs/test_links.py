"""Every relative link of every document leads to a file, and to a heading in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "deploy", "systemd", "benchmarks", "worker_chart_export")
PAGES = sorted([*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))])
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(
    r"`((?:benchmarks|daemon|deploy|docs|localcloud|systemd|tests|worker_chart_export)/[\w./-]*)`"
)
ELSEWHERE = ("https://", "http://", "mailto:")


def prose(path):
    """Return the text of a document without its code."""
    without_blocks = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
    return re.sub(r"`[^`\n]+`", "code", without_blocks)


def anchors(path):
    """Return the anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    """Every link leads to a file or folder of the repository, and to an existing heading."""
    for link in LINK.findall(prose(page)):
        if link.startswith(ELSEWHERE):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert path.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(path), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_paths_that_are_quoted_exist(page):
    """Every quoted path exists, so that a rename changes the documents too."""
    quoted = PATH.findall(page.read_text(encoding="utf-8"))
    assert [path for path in quoted if not (ROOT / path).exists()] == []


def test_every_page_of_the_docs_can_be_reached():
    """Every page can be reached from the index, directly or over other pages."""
    seen, waiting = set(), [ROOT / "docs/index.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(page))}
        waiting += [path for path in targets if path.suffix == ".md" and path not in seen]
    assert [path for path in PAGES if path.is_relative_to(ROOT / "docs") and path not in seen] == []
