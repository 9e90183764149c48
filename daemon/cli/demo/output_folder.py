"""The demo's output folder: it holds the files of the last demo, and no other file is removed.

A demo writes a page, and a folder for each run. It renews a marker beside them after each write. The next
demo removes the files of run folders that hold a marker. Files that are newer than the marker stay: a person
added, moved or changed them. The marker is removed too, so that later demos leave the rest of the folder
alone.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from daemon.settings import SettingsError

PAGE = "index.html"
MARKER = ".worker-chart-export-demo"
MARKER_TEXT = "The next `worker-chart-export demo` removes the files here that are not newer than this one.\n"
RUN_FOLDER = re.compile(r"[0-9]{8}-[0-9]{6}_[A-Za-z0-9._-]+")
#: Every page of a demo contains this. Another page is never replaced.
PAGE_SIGNATURE = b"by worker-chart-export</"


class OutputFolder:
    """The folder that a demo writes into.

    Args:
        path: The folder; it is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Create the folder and check it, before the demo works for a minute.

        Raises:
            SettingsError: The folder can't be written, or its page or marker is not one of a demo.
        """
        page, marker = self.path / PAGE, self.path / MARKER
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
            is_marker_good = _file_status(marker) is not None or not os.path.lexists(marker)
            is_page_good = not os.path.lexists(page) or self._is_page_of_demo()
        except OSError as error:
            raise SettingsError(
                [f"--output: expected a folder that can be written, got {self.path} ({error.strerror})"]
            ) from error
        if not is_marker_good:
            raise SettingsError([f"--output: {marker} is not a file; expected a folder without it"])
        if not is_page_good:
            raise SettingsError(
                [f"--output: {page} was not made by a demo, or changed since; expected a folder without it"]
            )

    def _is_page_of_demo(self) -> bool:
        page, marker = _file_status(self.path / PAGE), _file_status(self.path / MARKER)
        if page is None or PAGE_SIGNATURE not in (self.path / PAGE).read_bytes():
            return False
        return marker is None or page.st_mtime_ns <= marker.st_mtime_ns

    def clear(self) -> list[str]:
        """Remove the files of the last demo; return the names of everything else in the folder."""
        for run in list(self.path.iterdir()):
            marker = _file_status(run / MARKER)
            if marker is None or run.is_symlink() or not RUN_FOLDER.fullmatch(run.name):
                continue
            for folder, _, names in os.walk(run, topdown=False):  # does not follow links
                for path in (Path(folder, name) for name in names):
                    with suppress(OSError):  # the file stays, and its folder is returned
                        if _is_as_old(path, marker):
                            path.unlink()
                with suppress(OSError):  # the folder is not empty
                    Path(folder).rmdir()
        return sorted(entry.name for entry in self.path.iterdir() if entry.name not in (PAGE, MARKER))

    def write(self, name: str, content: bytes) -> None:
        """Write a file completely or not at all, and renew the marker.

        Args:
            name: The path relative to the folder, with `/`.
            content: The content of the file.
        """
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
        run, is_nested, _ = name.partition("/")
        (self.path / (run if is_nested else "") / MARKER).write_text(MARKER_TEXT)


def _is_as_old(path: Path, marker: os.stat_result) -> bool:
    """Return True for a file that is not newer than the marker.

    A move keeps the time of modification, but renews the time of the last change of status.
    """
    file = _file_status(path)
    if file is None:
        return False
    return file.st_mtime_ns <= marker.st_mtime_ns and file.st_ctime_ns <= marker.st_ctime_ns


def _file_status(path: Path) -> os.stat_result | None:
    """Return the status of a regular file; None for a link and everything else."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None
