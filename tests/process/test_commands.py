"""The commands as real processes."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys

import pytest

from tests.support.cloud.resources import SECRET_KEY
from tests.support.process.commands import run_command
from tests.support.process.daemons import ROOT, clean_environment


def iter_until(lines, word):
    """Return the lines up to the one that contains the text."""
    for line in lines:
        yield line
        if word in line:
            return


def test_help_names_every_command_and_shows_examples():
    """The help has every command and examples."""
    overview = run_command("--help")
    assert overview.returncode == 0
    for name in ("demo", "daemon", "emulators", "run-local", "publish"):
        assert name in overview.stdout
        assert "Example" in run_command(name, "--help").stdout


def test_version():
    """`--version` prints the package's version."""
    assert run_command("--version").stdout == "worker-chart-export 0.2.0\n"


def test_daemon_check_prints_the_effective_settings_without_secrets(deployment):
    """`daemon --check` prints the effective settings without secrets."""
    done = run_command("daemon", "--check", environment=deployment.settings(LOG_LEVEL="debug"))
    assert done.returncode == 0
    assert f"CHARTS_BUCKET=gs://{deployment.bucket}" in done.stdout
    assert "LOG_LEVEL=DEBUG" in done.stdout
    assert "CHART_IMG_ACCOUNTS_JSON=(hidden)" in done.stdout
    assert SECRET_KEY not in done.stdout + done.stderr


def test_daemon_check_with_bad_settings_is_exit_2():
    """`daemon --check` prints each wrong setting in a line on standard error and exits with 2."""
    done = run_command("daemon", "--check", environment={"HEALTH_PORT": "99999"})
    assert done.returncode == 2
    assert "HEALTH_PORT" in done.stderr
    assert "CHARTS_BUCKET" in done.stderr
    assert done.stdout == ""


def test_misspelt_settings_are_warned_about(deployment):
    """`daemon --check` and `doctor` name a variable that is nearly a setting; exit codes stay as they are."""
    settings = deployment.settings(WORKER_CONCURENCY="99")
    checked = run_command("daemon", "--check", environment=settings)
    assert checked.returncode == 0
    assert checked.stderr.startswith("warning: 'WORKER_CONCURENCY' is not a setting")
    assert "did you mean WORKER_CONCURRENCY?" in checked.stderr
    report = run_command("doctor", "--output", "json", environment=settings)
    found = [result for result in json.loads(report.stdout)["checks"] if result["id"] == "settings.spelling"]
    assert [result["status"] for result in found] == ["warning"]
    assert report.returncode != 2, "a warning does not make the settings bad"


def test_publish_reaches_a_daemon(deployment):
    """`publish` uses the subscription's topic, and the daemon works the step."""
    run_id, (step_id,) = deployment.put_run()
    with deployment.daemon().started() as daemon:
        done = run_command("publish", run_id, step_id, environment=deployment.settings())
        assert done.returncode == 0, done.stderr
        assert deployment.topic in done.stdout
        daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("arguments", "change", "code", "message"),
    [
        (["a/b"], {}, 2, "runId"),
        (["run", "a.b"], {}, 2, "stepId"),
        (["run"], {"PUBSUB_SUBSCRIPTION": "nobody-made-this"}, 3, "refused"),
        (["run"], {"PUBSUB_SUBSCRIPTION": None}, 2, "PUBSUB_SUBSCRIPTION"),
    ],
)
def test_publish_reports_errors(deployment, arguments, change, code, message):
    """`publish` exits with 2 for bad ids and settings, and with 3 for a missing subscription."""
    done = run_command("publish", *arguments, environment=deployment.settings(**change))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("full", [True, False])
def test_publish_to_a_topic_needs_no_subscription(deployment, full):
    """`publish` to a topic's full path needs no setting of ours, to an id the project."""
    places = deployment.settings()
    needed = ("PUBSUB_EMULATOR_HOST",) if full else ("PUBSUB_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT")
    environment = {name: places[name] for name in needed} | {"QUARANTINE_TOPIC": "/"}
    topic = deployment.topic if full else deployment.topic.rpartition("/")[2]
    done = run_command("publish", "run", "--topic", topic, environment=environment)
    assert done.returncode == 0, done.stderr
    assert deployment.topic in done.stdout


@pytest.mark.parametrize(("topic", "message"), [("flow-steps", "GOOGLE_CLOUD_PROJECT"), ("a/b", "--topic")])
def test_publish_refuses_a_topic_it_cant_find(topic, message):
    """`publish` refuses an id without a project, and a text that is neither an id nor a path."""
    done = run_command("publish", "run", "--topic", topic)
    assert done.returncode == 2
    assert message in done.stderr


def test_emulators_print_their_export_lines_and_end_on_a_signal():
    """`emulators` prints all variables for a daemon and Google's clients, and ends on a signal."""
    with subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "emulators", "--with-demo-data"],
        env=clean_environment({}),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        lines = list(iter_until(process.stdout, "CHARTS_BUCKET"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""
    commands = [line for line in lines if line.startswith("# worker-chart-export publish ")]
    assert len(commands) == 5
    assert all(len(shlex.split(command, comments=False)) == 5 for command in commands)
    names = [line.split()[1].split("=")[0] for line in lines if line.startswith("export ")]
    assert len(names) + len(commands) == len(lines)
    assert {"PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"} <= set(names)
    assert {"GOOGLE_CLOUD_PROJECT", "PUBSUB_SUBSCRIPTION", "CHARTS_BUCKET"} <= set(names)


def test_emulators_refuse_a_busy_port():
    """`emulators` reports a busy port in one line, whatever the service."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("pubsub", "firestore", "storage"):
            done = run_command("emulators", f"--{name}-port", str(port))
            assert done.returncode == 2
            assert (
                done.stderr
                == f"error: --{name}-port: can't listen on 127.0.0.1:{port}: Address already in use\n"
            )


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_emulators_refuse_a_number_that_is_no_port(port):
    """`emulators` refuses an invalid port with the option's name."""
    done = run_command("emulators", "--storage-port", port)
    assert done.returncode == 2
    assert "--storage-port" in done.stderr


INTERRUPTED_IMPORT = """
import os, signal, sys
from daemon.cli.__main__ import main

class SignalOnImport:
    def find_spec(self, name, path, target=None):
        if name == "daemon.cli.app":
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, SignalOnImport())
main()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_daemon_keeps_a_signal_that_comes_while_its_modules_load(deployment, name):
    """`worker-chart-export daemon` handles a signal while its modules load, like `python -m daemon`."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT.format(signal=name), "daemon"],
        env=clean_environment(deployment.settings()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"signal {name}" in done.stdout
    assert "Traceback" not in done.stderr


def test_an_unexpected_error_is_one_line():
    """An unexpected error is one line without a traceback, which could show keys."""
    code = (
        "import daemon.cli.app as cli\n"
        "def fail(): raise RuntimeError('no\\nidea')\n"
        "cli.app = fail\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 5
    assert done.stderr == "error: internal: RuntimeError: no idea\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--check"], 0, "PUBSUB_SUBSCRIPTION=steps"),
        (["--help"], 0, "--check"),
        (["--nonsense"], 2, "No such option: --nonsense"),
        (["nonsense"], 2, "unexpected extra argument"),
    ],
)
def test_python_m_daemon_reads_its_arguments(arguments, code, text):
    """`python -m daemon` with arguments is `worker-chart-export daemon` with them, and starts no daemon."""
    settings = {
        "GOOGLE_CLOUD_PROJECT": "project-1",
        "PUBSUB_SUBSCRIPTION": "steps",
        "CHARTS_BUCKET": "gs://charts",
        "CHARTS_API_MODE": "local",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        cwd=ROOT,
        env=clean_environment({"COLUMNS": "160", **settings}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert text in ended.stdout + ended.stderr
    assert "daemon daemon" not in ended.stdout + ended.stderr, "the usage line is what the person typed"
    assert "daemon_started" not in ended.stdout
