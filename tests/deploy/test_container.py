"""The Dockerfile without Docker: what it copies, pins, installs and starts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.deploy.dockerfile import ignore_patterns, instructions, is_sent
from tests.support.process.daemons import ROOT, clean_environment

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STEPS = instructions(DOCKERFILE)
IGNORE = ignore_patterns((ROOT / ".dockerignore").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINNED = re.compile(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*( ; [^\\]+)?( --hash=sha256:[0-9a-f]{64})+")
LOCKS = ("requirements.lock", "requirements-build.lock")


def _steps(keyword, *, stage=None):
    return [step for step in STEPS if step.keyword == keyword and stage in (None, step.stage)]


def _copied():
    """Return the files of this tree that are copied into the build."""
    return [source for step in _steps("COPY", stage=0) for source in step.arguments[:-1]]


def _last(keyword):
    return _steps(keyword)[-1].arguments


def _hadolint(file):
    return subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", file],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_linter_finds_nothing():
    """Hadolint with all its rules reports nothing."""
    found = _hadolint(ROOT / "Dockerfile")
    assert (found.returncode, found.stdout) == (0, "")


def test_the_linter_finds_errors(tmp_path):
    """Hadolint reports an untagged image, a shell entry point and a package list that stays."""
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN apt-get update\nENTRYPOINT python -m daemon\n", encoding="utf-8")
    found = _hadolint(bad)
    assert found.returncode == 1
    assert {"DL3006", "DL3009", "DL3025"} <= set(re.findall(r"DL\d+", found.stdout))


def test_both_stages_are_one_pinned_slim_python():
    """Both stages use the same pinned slim Python, because a venv holds its interpreter's path."""
    (base,) = [step.rest.removeprefix("BASE=") for step in _steps("ARG")]
    assert re.fullmatch(r"python:3\.13[.0-9]*-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
    assert [step.arguments[0] for step in _steps("FROM")] == ["${BASE}", "${BASE}"]


def test_the_build_copies_all_files_of_the_wheel():
    """The build copies the packages, readme and licence of pyproject.toml, the locks, and nothing else."""
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    readme, licences = PROJECT["project"]["readme"], PROJECT["project"]["license-files"]
    outside = [name for name in licences if name.split("/")[0] not in packages]
    assert sorted(_copied()) == sorted([*packages, readme, *outside, "pyproject.toml", *LOCKS])
    assert [name for name in _copied() if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", LOCKS)
def test_everything_that_is_installed_has_its_version_and_hashes(name):
    """Every package of the worker and of the build has a version and hashes."""
    lock = (ROOT / name).read_text(encoding="utf-8")
    lines = re.sub(r" \\\n\s+", " ", lock).splitlines()
    assert [line for line in lines if not PINNED.fullmatch(line)] == []


def test_nothing_is_installed_but_from_the_locks():
    """Only the locked packages with their hashes and the built wheel are installed."""
    commands = [command for step in _steps("RUN") for command in map(str.strip, step.rest.split("&&"))]
    installs = [command for command in commands if re.match(r"pip (--python \S+ )?install ", command)]
    *from_locks, wheel = installs
    assert [command.split()[-1] for command in from_locks] == list(reversed(LOCKS))
    assert all("--require-hashes --only-binary :all: -r" in command for command in from_locks)
    assert wheel.endswith("--no-deps /wheels/*.whl")


def test_nothing_is_fetched_but_packages():
    """Nothing but packages is downloaded: no ADD, no download tool, no system packages."""
    assert _steps("ADD") == []
    assert not re.search(r"\b(curl|wget|apt|apt-get|git)\b", " ".join(step.rest for step in _steps("RUN")))
    assert [step.rest for step in _steps("COPY", stage=1)] == ["--from=build /opt/worker /opt/worker"]


def test_no_package_installer_is_left():
    """The image contains no package installer."""
    assert "python -m venv --without-pip /opt/worker" in _steps("RUN", stage=0)[0].rest
    assert "python -m pip uninstall --yes pip" in _steps("RUN", stage=1)[0].rest


def test_the_process_is_no_root_and_gets_the_signals():
    """The process has a numeric non-root user and exec forms, so that it receives signals itself."""
    (user,) = _steps("USER", stage=1)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user.rest)
    assert _last("STOPSIGNAL") == ["SIGTERM"]
    assert _last("ENTRYPOINT") + _last("CMD") == ["worker-chart-export", "daemon"]
    assert "worker-chart-export" in PROJECT["project"]["scripts"]
    assert _steps("HEALTHCHECK")[0].rest.endswith('CMD ["worker-chart-export", "healthcheck"]')


def test_the_entry_point_has_both_commands():
    """The arguments of ENTRYPOINT, CMD and HEALTHCHECK are valid commands."""
    for command in (_last("CMD")[0], "healthcheck"):
        done = subprocess.run(
            [sys.executable, "-m", "daemon.cli", command, "--help"], env=clean_environment({}), check=False
        )
        assert done.returncode == 0


@pytest.mark.parametrize(
    "path",
    ["tests/conftest.py", ".git/config", ".venv/bin/python", "deploy/gke/settings.yaml", "emulators.env"]
    + ["accounts.json", "daemon/__pycache__/main.cpython-313.pyc", "worker_chart_export/ledger/x.pyc"],
)
def test_files_that_no_image_needs_are_not_sent(path):
    """Tests, history, environments and possible secrets are not sent to Docker."""
    assert not is_sent(path, IGNORE)


def test_all_that_is_copied_is_sent():
    """Every file of each copied source is sent, except bytecode."""
    files = [
        path.relative_to(ROOT).as_posix()
        for name in _copied()
        for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert len(files) > 100
    assert [path for path in files if not is_sent(path, IGNORE)] == []


def test_patterns_work_as_in_docker():
    """Patterns work as in Docker: the last match wins, from the root, and a folder matches all below it."""
    assert is_sent("a/b.py", ["*", "!a"])
    assert not is_sent("c/a/b.py", ["*", "!a"])
    assert not is_sent("a/x/b.pyc", ["*", "!a", "**/*.pyc"])
    assert is_sent("a/x/b.pyc", ["*.pyc"])
    assert is_sent("a", [])
    assert not is_sent("a", ["?"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the unpacked wheel, built as the Dockerfile builds it."""
    folder = tmp_path_factory.mktemp("build")
    source, base = folder / "src", folder / "base"
    source.mkdir()
    for name in _copied():
        into = source / name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, into, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(ROOT / name, into)
    venv.create(base, with_pip=False)
    pip = f"{sys.executable} -m pip --python {base / 'bin' / 'python'} "
    for step in _steps("RUN", stage=0):
        for command in map(str.strip, step.rest.split("&&")):
            if command.startswith(("pip install ", "pip wheel ")):
                _run(command.replace("pip ", pip, 1).replace("/wheels", str(folder / "wheels")), source)
    (wheel,) = (folder / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _run(command, folder):
    done = subprocess.run(
        ["/bin/sh", "-euc", command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_every_file_of_the_packages(built):
    """The wheel contains all data: fonts, samples, templates, the gallery page, `py.typed`."""
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    wanted = {
        path.relative_to(built.parent / "src").as_posix()
        for name in packages
        for path in (built.parent / "src" / name).rglob("*")
        if path.is_file()
    }
    assert {name for name in wanted if name.endswith((".ttf", ".html", "py.typed"))}
    assert {name for name in wanted if not (built / name).is_file()} == set()
    (licence,) = built.glob("worker_chart_export-*.dist-info/licenses/LICENSE")
    assert "Apache License" in licence.read_text(encoding="utf-8")


def test_the_daemon_starts_from_the_wheel(built, tmp_path):
    """Without settings the daemon from the wheel reports what is missing and exits with 2."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "daemon"],
        cwd=tmp_path,
        env=clean_environment({"PYTHONPATH": str(built)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "PUBSUB_SUBSCRIPTION" in done.stdout + done.stderr
    where = "import daemon, sys; sys.stdout.write(daemon.__file__)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", where],
        cwd=tmp_path,
        env=clean_environment({"PYTHONPATH": str(built)}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(built))
