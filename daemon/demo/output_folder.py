"""The demo's output folder: holds the files of one demo, and keeps away from everybody else's.

What a demo writes it records in `demo-files.sha256`, which `sha256sum -c` reads. The next demo removes just
that: files that stand in the record and still hold what was written. Everything else stays.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from daemon.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = "index.html"
RECORD = "demo-files.sha256"
RECORD_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<path>.+)")
#: A page that a demo made says so; another one is not written over.
MARK = b"by worker-chart-export</"


class OutputFolder:
    """Where a demo puts its files.

    Args:
        path: The folder; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = path / RECORD

    def prepare(self) -> None:
        """Make the folder and try it, before a minute's work is done for it.

        Raises:
            SettingsError: It can't be written, or has a page that no demo made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
            is_foreign = self._has_foreign_page()
        except OSError as error:
            raise SettingsError(
                [f"--output: expected a folder that can be written, got {self.path} ({error.strerror})"]
            ) from error
        if is_foreign:
            raise SettingsError(
                [f"--output: {self.path / PAGE} was not made by a demo; expected a folder without it"]
            )

    def _has_foreign_page(self) -> bool:
        page = self.path / PAGE
        if page.is_symlink() or (page.exists() and not page.is_file()):
            return True
        return page.exists() and MARK not in page.read_bytes()

    def clear(self) -> list[str]:
        """Remove what the last demo wrote here; returns what else is in the folder, by name."""
        folders: set[Path] = set()
        for path in list(self._unchanged_files()):
            path.unlink()
            folders |= {parent for parent in path.parents if self.path in parent.parents}
        for folder in sorted(folders, reverse=True):  # the deepest first
            with suppress(OSError):  # something else is in it
                folder.rmdir()
        self._record.unlink(missing_ok=True)
        return sorted(entry.name for entry in self.path.iterdir() if entry.name != PAGE)

    def _unchanged_files(self) -> Iterator[Path]:
        if not self._record.is_file() or self._record.is_symlink():
            return
        for line in self._record.read_text("utf-8", errors="replace").splitlines():
            entry = RECORD_LINE.fullmatch(line)
            if (
                entry
                and (path := self._inside(entry["path"]))
                and _digest(path.read_bytes()) == entry["digest"]
            ):
                yield path

    def _inside(self, name: str) -> Path | None:
        """The regular file of that name, or None if there is none or the name leads out of the folder."""
        path = self.path / name
        if PurePosixPath(name).is_absolute() or path.resolve() != self.path.resolve() / name:
            return None  # `..`, or a link on the way
        return path if path.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, recorded first, so that no file of a demo that was stopped is left behind unknown.

        Args:
            name: Relative to the folder, with `/`.
            content: The file's content.
        """
        with self._record.open("a", encoding="utf-8") as record:
            record.write(f"{_digest(content)}  {name}\n")
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
