from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.cli.demo.output_folder import PAGE, RECORD, OutputFolder
from daemon.settings import SettingsError

RUN = "20260102-030405_IBM_abc123"
OTHER_RUN = "20260102-030406_IBM_abc123"
#: Of `one`.
DIGEST = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"


@pytest.fixture
def folder(tmp_path):
    """An output folder in which a demo wrote two files and its page."""
    output = OutputFolder(tmp_path / "out")
    output.prepare()
    output.write(f"{RUN}/charts/one.png", b"one")
    output.write(f"{RUN}/manifest.json", b"{}")
    output.write(PAGE, b"<p>Made today by worker-chart-export</p>")
    return output


def everything_in(output):
    """The names of all files below the folder."""
    return {path.relative_to(output.path).as_posix() for path in output.path.rglob("*") if path.is_file()}


def test_the_next_demo_removes_what_the_last_one_wrote_and_the_folders_it_made(folder):
    """Files, folders and the record."""
    OutputFolder(folder.path).prepare()
    assert OutputFolder(folder.path).clear() == []
    assert list(folder.path.iterdir()) == []


def test_what_a_demo_did_not_write_stays_and_is_named(folder):
    """Beside its files and in its folders."""
    (folder.path / RUN / "notes.txt").write_text("mine")
    (folder.path / "holiday.png").write_bytes(b"mine")
    assert folder.clear() == [RUN, "holiday.png"]
    assert everything_in(folder) == {"holiday.png", f"{RUN}/notes.txt"}


def test_a_file_that_was_changed_since_is_somebody_elses(folder):
    """It stands in the record, but no longer holds what the demo wrote."""
    (folder.path / f"{RUN}/charts/one.png").write_bytes(b"retouched")
    folder.clear()
    assert everything_in(folder) == {f"{RUN}/charts/one.png"}


@pytest.mark.parametrize(
    "name",
    [
        "../victim",
        "/{parent}/victim",
        f"{RUN}/../../victim",
        f"{RUN}/link/victim",
        f"{RUN}/linked_file",
        RUN,
        f"{RUN}/nothing",
        f"{RUN}/{'x' * 5000}",
        f"{RUN}/a\0b",
    ],
)
def test_a_record_leads_nowhere_outside_the_folder(tmp_path, folder, name):
    """Whatever stands in it: the folder may be anybody's."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"one")
    (folder.path / RUN / "link").symlink_to(tmp_path)
    (folder.path / RUN / "linked_file").symlink_to(victim)
    with (folder.path / RECORD).open("a") as record:
        record.write(f"not a line of a record\n{DIGEST}  {name.format(parent=tmp_path)}\n")
    folder.clear()
    assert victim.read_bytes() == b"one"
    assert (folder.path / RUN / "linked_file").is_symlink()


def test_the_record_is_one_that_sha256sum_checks(folder):
    """So that a person can ask whether the files are still those of the demo."""
    check = [shutil.which("sha256sum"), "--check", "--strict", RECORD]
    done = subprocess.run(check, cwd=folder.path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_demo_that_was_stopped_leaves_nothing_unknown(folder):
    """A file is recorded before it is written: here the disk takes it no more."""
    (folder.path / OTHER_RUN).write_text("a file where a folder is needed")
    with pytest.raises(FileExistsError):
        folder.write(f"{OTHER_RUN}/two.png", b"two")
    assert f"{OTHER_RUN}/two.png" in (folder.path / RECORD).read_text()
    folder.clear()
    assert everything_in(folder) == {OTHER_RUN}


def test_a_page_that_no_demo_made_is_not_written_over(tmp_path):
    """The command ends before any work is done for it."""
    (tmp_path / PAGE).write_text("<h1>My site</h1>")
    with pytest.raises(SettingsError, match=r"index\.html was not made by a demo"):
        OutputFolder(tmp_path).prepare()


def test_a_link_in_the_place_of_the_page_is_not_followed(tmp_path, folder):
    """Whatever it leads to, even another demo's page."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / PAGE).symlink_to(folder.path / PAGE)
    with pytest.raises(SettingsError):
        OutputFolder(tmp_path / "other").prepare()


@pytest.mark.parametrize("name", ["holiday.png", "photos/holiday.png", ".git/config"])
def test_a_record_of_somebody_else_removes_nothing_of_his(folder, name):
    """However well its digest fits: a demo writes into folders of its runs alone."""
    (folder.path / name).parent.mkdir(exist_ok=True)
    (folder.path / name).write_bytes(b"one")
    with (folder.path / RECORD).open("a") as record:
        record.write(f"{DIGEST}  {name}\n")
    folder.clear()
    assert name in everything_in(folder)


def test_a_page_that_was_changed_since_is_not_written_over(folder):
    """It has the mark of a demo, and somebody's work."""
    with (folder.path / PAGE).open("ab") as page:
        page.write(b"<p>My notes</p>")
    with pytest.raises(SettingsError, match=r"or changed since"):
        folder.prepare()


def test_a_page_of_a_demo_that_kept_no_record_is_written_over(folder):
    """Nothing says that it was changed."""
    (folder.path / RECORD).unlink()
    folder.prepare()


def test_a_record_that_is_none_ends_the_command_before_any_work(tmp_path):
    """Not a traceback after it."""
    (tmp_path / RECORD).mkdir()
    with pytest.raises(SettingsError, match=r"demo-files\.sha256 is no record of a demo"):
        OutputFolder(tmp_path).prepare()


def test_a_link_in_the_place_of_the_record_is_not_followed(tmp_path, folder):
    """What it leads to is not appended to."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / RECORD).symlink_to(folder.path / RECORD)
    with pytest.raises(SettingsError):
        OutputFolder(tmp_path / "other").prepare()


def test_a_write_that_fails_leaves_what_was_there(folder, monkeypatch):
    """Whole, and no half file beside it."""

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    before = everything_in(folder)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"No space"):
        folder.write(f"{RUN}/manifest.json", b"[]")
    assert (folder.path / RUN / "manifest.json").read_bytes() == b"{}"
    assert everything_in(folder) == before
