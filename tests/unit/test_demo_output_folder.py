from __future__ import annotations

import shutil
import subprocess

import pytest

from daemon.demo.output_folder import PAGE, RECORD, OutputFolder
from daemon.settings import SettingsError


@pytest.fixture
def folder(tmp_path):
    """An output folder in which a demo wrote two files and its page."""
    output = OutputFolder(tmp_path / "out")
    output.prepare()
    output.write("run_a/charts/one.png", b"one")
    output.write("run_a/manifest.json", b"{}")
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
    (folder.path / "run_a" / "notes.txt").write_text("mine")
    (folder.path / "holiday.png").write_bytes(b"mine")
    assert folder.clear() == ["holiday.png", "run_a"]
    assert everything_in(folder) == {"holiday.png", "run_a/notes.txt"}


def test_a_file_that_was_changed_since_is_somebody_elses(folder):
    """It stands in the record, but no longer holds what the demo wrote."""
    (folder.path / "run_a/charts/one.png").write_bytes(b"retouched")
    folder.clear()
    assert everything_in(folder) == {"run_a/charts/one.png"}


@pytest.mark.parametrize(
    "name", ["../victim", "/{parent}/victim", "link/victim", "linked_file", "run_a", "nothing"]
)
def test_a_record_leads_nowhere_outside_the_folder(tmp_path, folder, name):
    """Whatever stands in it: the folder may be anybody's."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"one")
    (folder.path / "link").symlink_to(tmp_path)
    (folder.path / "linked_file").symlink_to(victim)
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # of `one`
    with (folder.path / RECORD).open("a") as record:
        record.write(f"not a line of a record\n{digest}  {name.format(parent=tmp_path)}\n")
    folder.clear()
    assert victim.read_bytes() == b"one"
    assert (folder.path / "linked_file").is_symlink()


def test_the_record_is_one_that_sha256sum_checks(folder):
    """So that a person can ask whether the files are still those of the demo."""
    check = [shutil.which("sha256sum"), "--check", "--strict", RECORD]
    done = subprocess.run(check, cwd=folder.path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_demo_that_was_stopped_leaves_nothing_unknown(folder):
    """A file is recorded before it is written: here the disk takes it no more."""
    (folder.path / "run_b").write_text("a file where a folder is needed")
    with pytest.raises(FileExistsError):
        folder.write("run_b/two.png", b"two")
    assert "run_b/two.png" in (folder.path / RECORD).read_text()
    folder.clear()
    assert everything_in(folder) == {"run_b"}


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
