"""Make the site of the same files that the repository shows: the hook of `mkdocs.yml`.

Pages below `docs/` link to files outside of it, for example to `../CONTRIBUTING.md`. This hook adds such
files to the site, below `repository/`, and changes the links so that they lead there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = "repository/"
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each file outside of `docs/` that a page links to, and the files that those link to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        for _, target, *_ in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            path = _resolve(page, target)
            if path in seen or path.startswith("docs/") or not (ROOT / path).is_file():
                continue
            seen.add(path)
            waiting += [path] if path.endswith(".md") else []
            files.append(File.generated(config, OUTSIDE + path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change the links that lead out of `docs/`."""
    del config, files
    uri = page.file.src_uri
    source = uri.removeprefix(OUTSIDE) if uri.startswith(OUTSIDE) else f"docs/{uri}"

    def rewritten(match: re.Match[str]) -> str:
        start, target, anchor, end = match.groups(default="")
        path = _resolve(source, target)
        in_site = path.removeprefix("docs/") if path.startswith("docs/") else OUTSIDE + path
        return f"{start}{posixpath.relpath(in_site, posixpath.dirname(uri) or '.')}{anchor}{end}"

    return LINK.sub(rewritten, markdown)


def _resolve(page: str, target: str) -> str:
    """Return the path from the root of what a page links to; a folder stands for its README."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    return f"{path}/README.md" if (ROOT / path).is_dir() else path
