"""The former version of the worker: a wheel from the repository's own history, in its own environment."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.process.fork_server import ROOT

FORMER = "0.1"
VENV = Path(ROOT, ".venv-former")
_READY = VENV / ".ready"


class NoFormerVersion(Exception):
    """The history that is here does not have the former version."""


def former_python() -> Path:
    """Return the interpreter that has the former version installed; build it at the first call.

    Raises:
        NoFormerVersion: This is no clone of the repository, or one without its history.
    """
    python = VENV / "bin" / "python"
    commit = _last_commit()
    if not (_READY.exists() and _READY.read_text() == commit):
        _install(commit)
        _READY.write_text(commit)
    return python


def _last_commit() -> str:
    """Return the last commit whose pyproject.toml has the former version."""
    its_version = f'-Sversion = "{FORMER}.'
    replaced = _git("log", "--first-parent", "--format=%H", its_version, "--", "pyproject.toml")
    if not replaced:
        raise NoFormerVersion(
            f"The git history that is here does not have version {FORMER}. In a shallow clone, "
            "`git fetch --unshallow` gets it. The other parts run without it: `python -m tests.chaos --help`."
        )
    return _git("rev-parse", f"{replaced.split()[0]}^")


def _install(commit: str) -> None:
    """Build the wheel of a commit, and install it with the dependencies that its own lock file names."""
    archive = _git_bytes("archive", commit)
    with TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        _run(sys.executable, "-m", "venv", "--clear", str(VENV))
        python = str(VENV / "bin" / "python")
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
        _run(*pip, "install", "-r", str(Path(folder, "requirements.lock")))
        _run(*pip, "wheel", "--no-deps", "--wheel-dir", f"{folder}/wheels", folder)
        (wheel,) = Path(folder, "wheels").glob(f"*-{FORMER}.*.whl")
        _run(*pip, "install", "--no-deps", str(wheel))


def _git(*arguments: str) -> str:
    return _git_bytes(*arguments).decode().strip()


def _git_bytes(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError) as error:
        message = f"Version {FORMER} is built from the git history of this repository, which can't be read"
        raise NoFormerVersion(f"{message}: {error}") from error
    return done.stdout


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
