"""The shipped units, checked by systemd itself and against the daemon's settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict

import pytest

from daemon.exit import ExitCode
from daemon.lifecycle.systemd import START_EXTENSION_SECONDS, ServiceManager
from daemon.main import GRACE_SECONDS
from daemon.settings import ChartsApiMode, Settings, load_settings
from tests.support.process.daemons import ROOT

FOLDER = ROOT / "systemd"
SINGLE, TEMPLATE = "worker-chart-export.service", "worker-chart-export@.service"
UNITS = [SINGLE, TEMPLATE]
MAX_EXPOSURE = 1.5
#: The remaining checks are needed by the daemon, which uses the internet, or are negligible.
INHERENT = {
    "PrivateNetwork",
    "RestrictAddressFamilies_AF_INET_INET6",
    "IPAddressDeny",
    "RestrictAddressFamilies_AF_UNIX",
    "RootDirectoryOrRootImage",
    "DeviceAllow",
    "ProcSubset",
}


@pytest.fixture(scope="session")
def analyze():
    """Run `systemd-analyze`, which needs no running systemd and is on the CI machines."""
    program = shutil.which("systemd-analyze")
    if program is None:
        lacking = "systemd-analyze is not installed (package systemd)"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)

    def run(*arguments):
        return subprocess.run(
            [program, "--no-pager", *arguments], capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def copied(tmp_path):
    """Copy a unit with an existing program, as `verify` needs one; lines may be added."""

    def copy(name, *, added=""):
        text = (FOLDER / name).read_text(encoding="utf-8")
        text, replaced = re.subn("(?m)^ExecStart=.*$", "ExecStart=/bin/true", text)
        assert replaced == 1
        path = tmp_path / name
        path.write_text(text.replace("[Service]\n", f"[Service]\n{added}\n"), encoding="utf-8")
        return path

    return copy


def settings_of(name):
    """Return key -> values, in order, of all sections."""
    found = defaultdict(list)
    for line in lines_of(name):
        key, equals, value = line.partition("=")
        if equals:
            found[key].append(value)
    return found


def lines_of(name):
    """Return the lines without comments and empty lines."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def exposure(analyze, path):
    """Return the overall score of `systemd-analyze security`."""
    said = analyze("security", "--offline=yes", str(path)).stdout
    return float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)[1])


@pytest.mark.parametrize("name", UNITS)
def test_verify_prints_nothing_for_a_unit(analyze, copied, name):
    """`systemd-analyze verify` prints nothing for a unit; unknown keys are only warnings."""
    done = analyze("verify", str(copied(name)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_reports_an_unknown_key(analyze, copied):
    """`systemd-analyze verify` reports an unknown key."""
    done = analyze("verify", str(copied(SINGLE, added="RestartMaxTea=5")))
    assert (done.returncode, "RestartMaxTea" in done.stderr) == (0, True)


@pytest.mark.parametrize("unit", UNITS)
def test_verify_prints_nothing_for_the_drop_in(analyze, copied, unit):
    """`systemd-analyze verify` prints nothing for the drop-in at its installed place."""
    path = copied(unit)
    folder = path.with_name(f"{unit}.d")
    folder.mkdir()
    text = (FOLDER / "gcp-key.conf").read_text(encoding="utf-8")
    (folder / "gcp-key.conf").write_text(text, encoding="utf-8")
    assert analyze("verify", str(path)).stderr == ""
    (folder / "gcp-key.conf").write_text(f"{text}NoSuchKey=1\n", encoding="utf-8")
    assert "NoSuchKey" in analyze("verify", str(path)).stderr


@pytest.mark.parametrize("name", UNITS)
def test_the_exposure_is_small(analyze, copied, name):
    """The exposure score is small; it was 1.1 when this was written."""
    assert exposure(analyze, copied(name)) <= MAX_EXPOSURE


def test_a_unit_with_less_hardening_has_a_higher_score(analyze, copied):
    """A unit with less hardening has a higher score."""
    assert exposure(analyze, copied(SINGLE)) < exposure(analyze, weakened(copied)) > MAX_EXPOSURE


def weakened(copied):
    """Return a unit without kernel hardening."""
    path = copied(SINGLE)
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub("(?m)^SystemCallFilter=.*\n", "", text), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", UNITS)
def test_only_what_is_inherent_is_exposed(analyze, copied, name):
    """Every security check that the unit fails is a known one."""
    said = analyze("security", "--offline=yes", "--json=short", str(copied(name))).stdout
    exposed = {check["json_field"] for check in json.loads(said) if check["exposure"]}
    assert exposed <= INHERENT


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_uses_sd_notify(name):
    """The unit uses sd_notify completely: ready, stopping, watchdog."""
    unit = settings_of(name)
    assert unit["ExecStart"] == ["/opt/worker-chart-export/bin/python -m daemon"]
    assert (unit["Type"], unit["NotifyAccess"], unit["KillMode"]) == (["notify"], ["main"], ["mixed"])
    watched = ServiceManager(address="/notify", watchdog_seconds=float(unit["WatchdogSec"][0]))
    assert watched.keep_alive_seconds + watched.check_seconds < watched.watchdog_seconds / 2
    assert watched.keep_alive_seconds + watched.check_seconds < START_EXTENSION_SECONDS


@pytest.mark.parametrize("name", UNITS)
def test_bad_settings_are_the_one_end_that_is_not_tried_again(name):
    """Only wrong settings end a service without a restart."""
    unit = settings_of(name)
    assert unit["RestartPreventExitStatus"] == [str(ExitCode.BAD_SETTINGS.value)]
    assert (unit["Restart"], unit["StartLimitIntervalSec"]) == (["always"], ["0"])


@pytest.mark.parametrize("name", UNITS)
def test_a_drain_fits_into_the_time_to_stop(name):
    """The default drain and the process's exit fit into TimeoutStopSec."""
    drain_seconds = Settings.model_fields["drain_seconds"].default
    assert float(settings_of(name)["TimeoutStopSec"][0]) >= drain_seconds + GRACE_SECONDS + 10


@pytest.mark.parametrize("name", UNITS)
def test_the_keys_are_in_no_core_dump_and_no_environment(name):
    """The keys are in no core dump and no environment, but in a credential of the service."""
    unit = settings_of(name)
    assert unit["LimitCORE"] == ["0"]
    assert unit["LoadCredential"] == ["accounts.json:/etc/worker-chart-export/accounts.json"]
    assert "CHART_IMG_ACCOUNTS_FILE=%d/accounts.json" in unit["Environment"]


def test_the_template_is_the_unit_and_what_instances_need():
    """The template unit equals the unit, except for what instances need."""
    single, template = lines_of(SINGLE), lines_of(TEMPLATE)
    assert [line for line in template if line not in single] == [
        "Description=Chart export worker %i (Pub/Sub pull subscriber)",
        "EnvironmentFile=-/etc/worker-chart-export/environment.%i",
        "Environment=HEALTH_PORT=0",
        "User=worker-chart-export-%i",
    ]
    assert [line for line in single if line not in template] == [
        "Description=Chart export worker (Pub/Sub pull subscriber)"
    ]


def test_the_example_of_an_environment_is_one(monkeypatch):
    """The example environment is valid in place of the unit's own settings."""
    monkeypatch.setenv("CHART_IMG_ACCOUNTS_FILE", "/run/credentials/unit/accounts.json")
    for name, (value,) in settings_of("environment.example").items():
        monkeypatch.setenv(name, value)
    settings = load_settings(Settings)
    assert (settings.charts_api_mode, settings.chart_img_accounts_file) == (ChartsApiMode.LOCAL, None)
