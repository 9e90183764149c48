"""The settings of tracing: off by default, and wrong ones named before the start."""

from __future__ import annotations

import logging
import re
import sys

import pytest
from opentelemetry.util.re import parse_env_headers

from daemon.cli.demo.worker import daemon_environment
from daemon.settings import Settings, SettingsError, load_settings
from daemon.settings.tracing import OTLP_MODULE, OTLP_PACKAGE, TracesExporter, TracingSettings
from daemon.tracing.setup import Tracing
from tests.support.process.daemons import ROOT
from tests.support.process.in_process_commands import run_here

GOOD = {
    "GOOGLE_CLOUD_PROJECT": "demo-project",
    "PUBSUB_SUBSCRIPTION": "charts-sub",
    "CHARTS_BUCKET": "gs://charts-demo",
    "CHARTS_API_MODE": "local",
}
TOKEN = "token-that-must-never-be-seen"  # noqa: S105 - made up


@pytest.fixture
def load(monkeypatch):
    """Load settings of a class from a good environment and these variables."""

    def loaded(kind=Settings, **variables):
        for name, value in (GOOD | variables).items():
            monkeypatch.setenv(name, value)
        return load_settings(kind)

    return loaded


@pytest.mark.parametrize(
    ("variables", "target"),
    [
        ({}, TracesExporter.NONE),
        ({"OTEL_TRACES_EXPORTER": ""}, TracesExporter.NONE),
        ({"OTEL_TRACES_EXPORTER": "none"}, TracesExporter.NONE),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, TracesExporter.OTLP),
        ({"OTEL_TRACES_EXPORTER": "console"}, TracesExporter.CONSOLE),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, TracesExporter.NONE),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"}, TracesExporter.OTLP),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, TracesExporter.NONE),
    ],
)
def test_the_standard_variables_decide(load, variables, target):
    """The standard variables decide; an endpoint alone enables nothing."""
    assert load(**variables).traces_go_to is target


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "511"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:port"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "all"),
    ],
)
def test_a_wrong_value_is_reported_once_tracing_is_on(load, name, value):
    """A wrong value is reported when tracing is on; the SDK would use a default."""
    settings = load(OTEL_TRACES_EXPORTER="otlp", **{name: value})
    with pytest.raises(SettingsError, match=f"^{name}: expected .*, got "):
        Tracing(settings)
    Tracing(load(OTEL_TRACES_EXPORTER="none", **{name: value}))


@pytest.mark.parametrize(
    "pair",
    [
        f"Authorization Bearer {TOKEN}",
        f"Authorization: Bearer {TOKEN}==",
        f"x name={TOKEN}",
        f"={TOKEN}",
        f"x%0Aname={TOKEN}",
        f'authorization="Bearer {TOKEN}"',
        f"authorization={TOKEN};v=1",
        f"authorization={TOKEN}\\",
        f"authorization={TOKEN}ü",
        f"authorization={TOKEN}%C3%BC",
        f"authorization=Bearer%20{TOKEN}%0Ax",
        f"authorization={TOKEN}\n",
    ],
)
@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"])
def test_wrong_headers_are_not_shown(load, name, pair):
    """Wrong headers are reported without their value, because they hold tokens."""
    with pytest.raises(SettingsError) as caught:
        load(TracingSettings, **{name: f"x-good=1, {pair}"})
    assert caught.value.problems == [
        f"{name}: expected name=value pairs, parted by commas, the values percent-encoded, got (hidden)"
    ]


@pytest.mark.parametrize(
    "headers",
    [
        f"authorization=Bearer%20{TOKEN}, x-goog-user-project=p,",
        f"Authorization=Bearer {TOKEN}==",
        f" authorization = Basic%20{TOKEN}%3D%3D ",
        f"api-key={TOKEN},,x-empty=",
    ],
)
def test_good_headers_are_accepted_and_the_sdk_reads_each_of_them(load, caplog, headers):
    """Valid headers are accepted, and the SDK reads each of them without a log line."""
    found = load(TracingSettings, OTEL_EXPORTER_OTLP_HEADERS=headers)
    assert TOKEN not in repr(found)
    with caplog.at_level(logging.WARNING, "opentelemetry.util.re"):
        read = parse_env_headers(headers, liberal=True)
    assert len(read) == len([pair for pair in headers.split(",") if pair])
    assert caplog.records == []


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
@pytest.mark.parametrize(
    "value",
    [
        f"http://user:{TOKEN}@collector:4318",
        f"http:/user:{TOKEN}@collector",
        f"https://collector/v1/traces?api-key={TOKEN}",
        f"https://collector/v1/traces#{TOKEN}",
        "https://collector/?",
    ],
)
def test_an_endpoint_that_may_hold_a_secret_is_refused_and_not_shown(load, name, value):
    """An endpoint with a possible secret is refused unshown, because the exporter would log it."""
    with pytest.raises(SettingsError) as caught:
        load(TracingSettings, **{name: value})
    expected = "http(s)://host[:port][/path] without user, password, query and fragment"
    assert caught.value.problems == [f"{name}: expected {expected}, got (hidden)"]


@pytest.mark.parametrize(
    ("variables", "is_good"),
    [
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "512"}, True),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}, True),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2048"}, True),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "256"}, False),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "0", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}, False),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2049"}, False),
    ],
)
def test_a_check_finds_a_queue_that_is_smaller_than_a_batch(variables, is_good):
    """A queue smaller than a batch is found by the check, by the SDK's defaults where unset."""
    done = run_here("daemon", "--check", environment={**GOOD, "OTEL_TRACES_EXPORTER": "console", **variables})
    assert done.returncode == (0 if is_good else 2), done.stderr
    assert done.stderr.startswith(
        "" if is_good else "error: OTEL_BSP_MAX_QUEUE_SIZE: expected a whole number"
    )


@pytest.mark.parametrize("name", ["OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"])
def test_an_invalid_switch_is_reported_with_all_other_errors(load, name):
    """An invalid switch is reported with all other errors."""
    with pytest.raises(SettingsError) as caught:
        load(**{name: "maybe", "HEALTH_PORT": "x"})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [name, "HEALTH_PORT"]


class Missing:
    """A finder that hides a module from Python's imports."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(self, name, _path=None, _target=None):
        """Hide the module; called before all other finders."""
        if name == self._module:
            raise ModuleNotFoundError(name)


@pytest.mark.parametrize("module", [OTLP_MODULE, "opentelemetry.exporter"])
def test_a_missing_exporter_is_exit_2_with_what_to_install(monkeypatch, module):
    """Without the extra, tracing ends with exit code 2 and the package to install."""
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(module), *sys.meta_path])
    done = run_here("daemon", "--check", environment={**GOOD, "OTEL_TRACES_EXPORTER": "otlp"})
    assert done.returncode == 2
    assert done.stderr == (
        "error: OTEL_TRACES_EXPORTER: expected none, console, or otlp, which needs the package "
        "opentelemetry-exporter-otlp-proto-http (pip install -r requirements.lock), got 'otlp'\n"
    )


def test_the_lock_contains_the_exporter():
    """The lock that image and units install contains the extra, as `make lock` compiles it."""
    pins = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    assert OTLP_PACKAGE in {pin.partition("==")[0] for pin in pins}
    (compiled,) = re.findall(r"COMPILE\) (.+) -o requirements\.lock", (ROOT / "Makefile").read_text("utf-8"))
    assert "--extra tracing" in compiled


def test_a_check_finds_the_errors_of_a_start():
    """A check reports the errors of a start, also of variables that only tracing reads."""
    wrong = {"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "sometimes"}
    done = run_here("daemon", "--check", environment={**GOOD, **wrong})
    assert done.returncode == 2
    assert done.stderr.startswith("error: OTEL_TRACES_SAMPLER: expected one of always_on, ")


def test_the_demo_s_daemon_uses_its_caller_s_tracing_settings(monkeypatch):
    """The demo's daemon uses its caller's tracing settings and its own other settings."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("LOG_FORMAT", "console")
    environment = daemon_environment({})
    assert environment["OTEL_TRACES_EXPORTER"] == "otlp"
    assert "LOG_FORMAT" not in environment


def test_the_check_shows_whether_tracing_is_on():
    """`daemon --check` shows whether tracing is on."""
    done = run_here("daemon", "--check", environment={**GOOD, "OTEL_TRACES_EXPORTER": "console"})
    assert "OTEL_TRACES_EXPORTER=console\n" in done.stdout
