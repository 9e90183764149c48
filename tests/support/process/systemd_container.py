"""A booted systemd for the units: systemd-nspawn on this machine's own files, deleted afterwards.

`/usr` is this machine's, read-only; everything else is empty and in memory. The network is this machine's
too, so that a test's embedded cloud is reached on loopback. Python and the project are bound to the units'
paths, because their real place can be a home folder, which the units hide.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.process.daemons import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

BOOT_SECONDS = 60.0
WAIT_SECONDS = 30.0
CAP_SYS_ADMIN = 21
UNITS = Path("/run/systemd/system.attached")
PREFIX = Path("/opt/worker-chart-export")
INTERPRETER, PACKAGES, PROJECT = Path("/opt/python"), Path("/opt/packages"), Path("/opt/project")


def why_no_container() -> str | None:
    """Return what this machine lacks to boot a systemd; None when nothing."""
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is not installed (package systemd-container)"
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (effective,) = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")]
    may_mount = int(effective, 16) >> CAP_SYS_ADMIN & 1
    return None if os.geteuid() == 0 and may_mount else "systemd-nspawn needs root with CAP_SYS_ADMIN"


class Container:
    """A booted container.

    Args:
        folder: An empty folder for its files.

    Attributes:
        configuration: Its `/etc/worker-chart-export`; files may be added and removed.
        units: Its units and drop-ins; call `reload` after changes.
        since: The start of the relevant log, in seconds of the Unix epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.configuration = folder / "configuration"
        self.units = folder / "units"
        self.since = time.time()
        installed = folder / "installed"
        for made in (self.configuration, self.units, installed):
            made.mkdir()
        for unit in (ROOT / "systemd").glob("*.service"):
            shutil.copy(unit, self.units)
        _install(installed)
        self._console = (folder / "console").open("w+b")
        self._nspawn = subprocess.Popen(
            [*_boot_command(), *self._binds(installed), "systemd.firstboot=no", "systemd.unit=basic.target"],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        try:
            self._wait_until_booted()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        """Power it off; nspawn ends with it and ends every process."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._nspawn.send_signal(number)
            try:
                self._nspawn.wait(WAIT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self._console.close()

    def run(self, *command: str) -> str:
        """Run a command inside; return its output, whatever its exit code."""
        (leader,) = self._leader()
        entering = ["nsenter", f"--target={leader}", "--mount", "--uts", "--ipc", "--pid", "--root", "--wd=/"]
        done = subprocess.run(
            [*entering, *command], capture_output=True, text=True, timeout=WAIT_SECONDS * 2, check=False
        )
        return done.stdout + done.stderr

    def reload(self) -> None:
        """Reload changed units or drop-ins."""
        assert self.run("systemctl", "daemon-reload") == ""

    def show(self, unit: str) -> dict[str, str]:
        """Return the unit's properties."""
        lines = self.run("systemctl", "show", unit).splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def journal(self, unit: str) -> list[str]:
        """Return the unit's log lines, including systemd's own."""
        wanted = [f"--unit={unit}", f"--since=@{self.since:.6f}"]
        return self.run("journalctl", "--no-pager", "--output=cat", *wanted).splitlines()

    def logged(self, unit: str, event: str) -> list[dict[str, Any]]:
        """Return the daemon's log lines of one event."""
        lines = [json.loads(line) for line in self.journal(unit) if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def wait_for(self, unit: str, **wanted: str) -> dict[str, str]:
        """Wait until the unit's properties are as given; return all."""
        self.wait_until(lambda: wanted.items() <= self.show(unit).items(), f"{unit} to be {wanted}", unit)
        return self.show(unit)

    def wait_until(self, holds: Callable[[], bool], what: str, unit: str) -> None:
        """Wait until `holds()` is true; fail with the end of the unit's log."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError("\n".join([f"waited for {what}", *self.journal(unit)[-30:]]))
            time.sleep(0.1)

    def _binds(self, installed: Path) -> list[str]:
        bound = {
            self.units: UNITS,
            self.configuration: Path("/etc/worker-chart-export"),
            installed: PREFIX,
            Path(sys.base_prefix): INTERPRETER,
            Path(sysconfig.get_path("purelib")): PACKAGES,
            ROOT: PROJECT,
        }
        return [f"--bind-ro={outside}:{inside}" for outside, inside in bound.items()]

    def _leader(self) -> list[str]:
        """Return the container's process 1, if there is one yet."""
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        return children.read_text(encoding="ascii").split()[:1]

    def _is_booted(self) -> bool:
        """Return whether it has booted. `degraded`: a unit of this machine failed, not ours."""
        return self.run("systemctl", "is-system-running").strip() in ("running", "degraded")

    def _wait_until_booted(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while not (self._leader() and self._is_booted()):
            if self._nspawn.poll() is not None or time.monotonic() > deadline:
                self._console.seek(0)
                said = self._console.read().decode(errors="replace")[-3000:]
                raise RuntimeError(f"systemd does not boot (exit code {self._nspawn.poll()}): {said}")
            time.sleep(0.1)


def _boot_command() -> list[str]:
    return [
        "systemd-nspawn",
        "--quiet",
        "--directory=/",
        "--volatile=yes",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        f"--machine=charts-{secrets.token_hex(4)}",
        "--console=read-only",
        "--boot",
    ]


def _install(prefix: Path) -> None:
    """Create a virtual environment for the container: this interpreter, its packages and the project."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = prefix / "lib" / version / "site-packages"
    for folder in (prefix / "bin", site_packages):
        folder.mkdir(parents=True)
    (prefix / "bin/python").symlink_to(INTERPRETER / "bin" / version)
    (prefix / "pyvenv.cfg").write_text(f"home = {INTERPRETER / 'bin'}\n", encoding="utf-8")
    (site_packages / "bound.pth").write_text(f"{PACKAGES}\n{PROJECT}\n", encoding="utf-8")
