from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.cli.demo.output_folder import MARKER, PAGE, OutputFolder
from daemon.settings import SettingsError

RUN = "20260102-030405_IBM_abc123"
OTHER_RUN = "20260102-030406_IBM_abc123"


@pytest.fixture
def folder(tmp_path):
    """Return an output folder with two files of a demo and its page."""
    output = OutputFolder(tmp_path / "out")
    output.prepare()
    output.write(f"{RUN}/charts/one.png", b"one")
    output.write(f"{RUN}/manifest.json", b"{}")
    output.write(PAGE, b"<p>Made today by worker-chart-export</p>")
    return output


def everything_in(output):
    """Return the names of all files below the folder, without the page's marker."""
    files = {path.relative_to(output.path).as_posix() for path in output.path.rglob("*") if not path.is_dir()}
    return files - {MARKER}


def touch_later(path):
    """Set a modification time after the demo, as an edit by a person does."""
    later = path.lstat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later), follow_symlinks=False)


def test_the_next_demo_removes_the_files_of_the_last_one_and_its_folders(folder):
    """The next demo removes the files and folders of the last one; the page stays until replaced."""
    OutputFolder(folder.path).prepare()
    assert OutputFolder(folder.path).clear() == []
    assert everything_in(folder) == {PAGE}
    assert not (folder.path / RUN).exists()


def test_other_files_stay_and_are_named(folder):
    """Other files beside the demo's files and in its folders stay, and are named."""
    for name in (f"{RUN}/notes.txt", "holiday.png"):
        (folder.path / name).write_text("mine")
        touch_later(folder.path / name)
    assert folder.clear() == [RUN, "holiday.png"]
    assert everything_in(folder) == {"holiday.png", f"{RUN}/notes.txt", PAGE}


def test_an_old_file_that_was_moved_into_a_folder_of_the_demo_stays(tmp_path, folder):
    """A move keeps the time of modification, and yet the file is not one of the demo."""
    notes, marker = tmp_path / "notes.txt", folder.path / RUN / MARKER
    notes.write_text("mine")
    os.utime(notes, ns=(0, 0))
    while notes.lstat().st_ctime_ns <= marker.lstat().st_ctime_ns:
        notes.chmod(0o600)  # the clock of the file system ticks every few milliseconds
    notes.rename(folder.path / RUN / "notes.txt")
    folder.clear()
    assert everything_in(folder) == {f"{RUN}/notes.txt", PAGE}


def test_files_that_stayed_once_are_never_removed(folder):
    """Files that stayed once are never removed, because their folder lost its marker."""
    (folder.path / RUN / "notes.txt").write_text("mine")
    touch_later(folder.path / RUN / "notes.txt")
    folder.clear()
    folder.write(f"{OTHER_RUN}/two.png", b"two")
    touch_later(folder.path / OTHER_RUN / MARKER)
    assert folder.clear() == [RUN]
    assert everything_in(folder) == {f"{RUN}/notes.txt", PAGE}


def test_a_file_that_was_changed_stays(folder):
    """A file that is newer than the marker stays."""
    (folder.path / f"{RUN}/charts/one.png").write_bytes(b"retouched")
    touch_later(folder.path / f"{RUN}/charts/one.png")
    folder.clear()
    assert everything_in(folder) == {f"{RUN}/charts/one.png", PAGE}


def test_links_are_neither_followed_nor_removed(tmp_path, folder):
    """Links are neither followed nor removed, because their targets belong to others."""
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("one", MARKER):
        (victim / name).write_bytes(b"one")
    (folder.path / RUN / "link").symlink_to(victim)
    (folder.path / RUN / "linked_file").symlink_to(victim / "one")
    (folder.path / OTHER_RUN).symlink_to(victim)
    folder.clear()
    assert sorted(path.name for path in victim.iterdir()) == [MARKER, "one"]
    assert (folder.path / RUN / "linked_file").is_symlink()
    assert (folder.path / OTHER_RUN).is_symlink()


@pytest.mark.parametrize("name", ["photos", ".git", f"x{RUN}"])
def test_a_folder_without_the_name_of_a_run_is_not_cleared(folder, name):
    """A folder without the name of a run is not cleared, even with a marker."""
    (folder.path / name).mkdir()
    for file in ("one.png", MARKER):
        (folder.path / name / file).write_bytes(b"one")
    folder.clear()
    assert {f"{name}/one.png", f"{name}/{MARKER}"} <= everything_in(folder)


def test_a_run_folder_without_a_marker_is_not_cleared(folder):
    """A run folder without a marker is not cleared, because no demo wrote it."""
    (folder.path / OTHER_RUN).mkdir()
    (folder.path / OTHER_RUN / "one.png").write_bytes(b"one")
    assert folder.clear() == [OTHER_RUN]


def test_a_demo_that_was_stopped_leaves_its_marker(folder):
    """The marker is renewed after each file, so a demo that stopped at the second file leaves one."""
    folder.write(f"{OTHER_RUN}/one.png", b"one")
    (folder.path / OTHER_RUN / "two").write_text("a file where a folder is needed")
    touch_later(folder.path / OTHER_RUN / "two")
    with pytest.raises(FileExistsError):
        folder.write(f"{OTHER_RUN}/two/two.png", b"two")
    folder.clear()
    assert everything_in(folder) == {f"{OTHER_RUN}/two", PAGE}


def test_a_page_that_no_demo_made_is_not_replaced(tmp_path):
    """A page that no demo wrote is not replaced: the command ends before any work."""
    (tmp_path / PAGE).write_text("<h1>My site</h1>")
    with pytest.raises(SettingsError, match=r"index\.html was not made by a demo"):
        OutputFolder(tmp_path).prepare()


def test_a_page_that_was_changed_is_not_replaced(folder):
    """A demo's page that was changed by a person is not replaced."""
    with (folder.path / PAGE).open("ab") as page:
        page.write(b"<p>My notes</p>")
    touch_later(folder.path / PAGE)
    with pytest.raises(SettingsError, match=r"or changed since"):
        folder.prepare()


def test_a_page_of_a_demo_without_a_marker_is_replaced(folder):
    """A demo's page without a marker is replaced, because nothing shows that it was changed."""
    (folder.path / MARKER).unlink()
    folder.prepare()


@pytest.mark.parametrize("name", [PAGE, MARKER])
def test_a_link_in_the_place_of_the_page_or_the_marker_is_not_followed(tmp_path, folder, name):
    """A link in the place of the page or the marker is not followed, whatever its target."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).symlink_to(folder.path / name)
    with pytest.raises(SettingsError):
        OutputFolder(tmp_path / "other").prepare()


def test_a_folder_in_the_place_of_the_marker_ends_the_command_before_any_work(tmp_path):
    """A folder in the place of the marker ends the command before any work and without a traceback."""
    (tmp_path / MARKER).mkdir()
    with pytest.raises(SettingsError, match=r"-demo is not a file"):
        OutputFolder(tmp_path).prepare()


def test_a_write_that_fails_leaves_the_old_content(folder, monkeypatch):
    """A failed write leaves the complete old content and no part of the new file."""

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    before = everything_in(folder)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"No space"):
        folder.write(f"{RUN}/manifest.json", b"[]")
    assert (folder.path / RUN / "manifest.json").read_bytes() == b"{}"
    assert everything_in(folder) == before
