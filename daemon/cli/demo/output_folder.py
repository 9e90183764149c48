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
#: What a demo writes lies in a folder of its run, or is the page: no record may name anything else.
DEMO_FILE = re.compile(r"[0-9]{8}-[0-9]{6}_[A-Za-z0-9._-]+(/[A-Za-z0-9_.-]+)+|" + re.escape(PAGE))
#: A page that a demo made says so; another one is not written over, nor is one that was changed since.
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
            SettingsError: It can't be written, or has a page that no demo made, or a record that none could.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
            has_record = self._try_record()
            is_foreign = has_record and self._has_foreign_page()
        except OSError as error:
            raise SettingsError(
                [f"--output: expected a folder that can be written, got {self.path} ({error.strerror})"]
            ) from error
        if not has_record:
            raise SettingsError(
                [f"--output: {self._record} is no record of a demo; expected a folder without it"]
            )
        if is_foreign:
            page = self.path / PAGE
            raise SettingsError(
                [f"--output: {page} was not made by a demo, or changed since; expected a folder without it"]
            )

    def _try_record(self) -> bool:
        """Whether there is none, or it is a file that can be read and written."""
        if self._record.is_symlink() or (self._record.exists() and not self._record.is_file()):
            return False
        if self._record.exists():
            with self._record.open("r+b"):
                pass
        return True

    def _has_foreign_page(self) -> bool:
        page = self.path / PAGE
        if page.is_symlink() or (page.exists() and not page.is_file()):
            return True
        if not page.exists():
            return False
        content = page.read_bytes()
        recorded = [digest for name, digest in self._recorded() if name == PAGE]
        return MARK not in content or (bool(recorded) and _digest(content) not in recorded)

    def clear(self) -> list[str]:
        """Remove what the last demo wrote here; returns what else is in the folder, by name."""
        folders: set[Path] = set()
        for path in list(self._unchanged_files()):
            try:
                path.unlink()
            except OSError:  # it is named with what else is there
                continue
            folders |= {parent for parent in path.parents if self.path in parent.parents}
        for folder in sorted(folders, reverse=True):  # the deepest first
            with suppress(OSError):  # something else is in it
                folder.rmdir()
        self._record.unlink(missing_ok=True)
        return sorted(entry.name for entry in self.path.iterdir() if entry.name != PAGE)

    def _unchanged_files(self) -> Iterator[Path]:
        for name, digest in self._recorded():
            with suppress(OSError):  # what can't be read is not ours
                path = self._inside(name)
                if path and _digest(path.read_bytes()) == digest:
                    yield path

    def _recorded(self) -> Iterator[tuple[str, str]]:
        """Name and digest of what stands in the record, as far as a demo may have written it."""
        if not self._record.is_file() or self._record.is_symlink():
            return
        for line in self._record.read_text("utf-8", errors="replace").splitlines():
            entry = RECORD_LINE.fullmatch(line)
            if entry and DEMO_FILE.fullmatch(entry["path"]):
                yield entry["path"], entry["digest"]

    def _inside(self, name: str) -> Path | None:
        """The regular file of that name, or None if there is none or the name leads out of the folder."""
        path = self.path / name
        if PurePosixPath(name).is_absolute() or path.resolve() != self.path.resolve() / name:
            return None  # `..`, or a link on the way
        return path if path.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; recorded first: no demo that is stopped leaves one unknown.

        Args:
            name: Relative to the folder, with `/`.
            content: The file's content.
        """
        with self._record.open("a", encoding="utf-8") as record:
            record.write(f"{_digest(content)}  {name}\n")
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.unlink(missing_ok=True)
        try:
            with part.open("xb") as file:
                file.write(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
