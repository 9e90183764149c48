"""The shell blocks of the documents, which people paste into their shells."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "deploy", "systemd", "benchmarks", "worker_chart_export")
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
#: The first words of a block that is meant for a shell, whatever its fence says.
COMMANDS = re.compile(r"^ *(worker-chart-export|make|gcloud|kubectl|systemctl|pip|/opt/|\$ )", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block; `line` is the line of the document at which it starts."""

    page: str
    line: int
    language: str
    text: str

    @property
    def is_for_a_shell(self) -> bool:
        """Whether its fence says `sh`."""
        return self.language == "sh"

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of a document, named by its path in the repository."""
    content = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=content.count("\n", 0, found.start()) + 1,
            language=found[2],
            text=textwrap.dedent(found[3]),
        )
        for found in FENCED.finditer(content)
    ]


def all_blocks() -> list[Block]:
    """Return the fenced blocks of all documents."""
    pages = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
    return [block for page in sorted(pages) for block in blocks_of(page.relative_to(ROOT).as_posix())]
