"""The person's commands as real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.daemons import ROOT, clean_environment


def run_command(*arguments, environment=None, timeout=60):
    """Run `worker-chart-export` and return the finished process."""
    return subprocess.run(
        [sys.executable, "-m", "daemon.cli", *arguments],
        env=clean_environment({"COLUMNS": "160", **(environment or {})}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_help_names_every_command_and_shows_examples():
    """Whoever asks for help finds the commands, and how each is used."""
    overview = run_command("--help")
    assert overview.returncode == 0
    for name in ("demo", "daemon", "emulators", "run-local", "publish"):
        assert name in overview.stdout
        assert "Example" in run_command(name, "--help").stdout


def test_version():
    """The version is the package's."""
    assert run_command("--version").stdout == "worker-chart-export 0.1.0\n"


def test_daemon_check_prints_the_effective_settings_without_secrets(scene):
    """What the daemon would run with, to be read by a person."""
    done = run_command("daemon", "--check", environment=scene.settings(LOG_LEVEL="debug"))
    assert done.returncode == 0
    assert f"CHARTS_BUCKET=gs://{scene.bucket}" in done.stdout
    assert "LOG_LEVEL=DEBUG" in done.stdout
    assert "CHART_IMG_ACCOUNTS_JSON=(hidden)" in done.stdout


def test_daemon_check_with_bad_settings_is_exit_2():
    """Each wrong setting on a line of its own, on standard error."""
    done = run_command("daemon", "--check", environment={"HEALTH_PORT": "99999"})
    assert done.returncode == 2
    assert "HEALTH_PORT" in done.stderr
    assert "CHARTS_BUCKET" in done.stderr
    assert done.stdout == ""


def test_publish_reaches_a_daemon(scene):
    """The topic is the subscription's own; the daemon works the step."""
    run_id, (step_id,) = scene.put_run()
    with scene.daemon().started() as daemon:
        done = run_command("publish", run_id, step_id, environment=scene.settings())
        assert done.returncode == 0, done.stderr
        assert scene.topic in done.stdout
        daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    assert scene.step(run_id, step_id)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("arguments", "change", "code", "words"),
    [
        (["a/b"], {}, 2, "runId"),
        (["run", "a.b"], {}, 2, "stepId"),
        (["run"], {"PUBSUB_SUBSCRIPTION": "nobody-made-this"}, 3, "refused"),
        (["run"], {"PUBSUB_SUBSCRIPTION": None}, 2, "PUBSUB_SUBSCRIPTION"),
    ],
)
def test_publish_says_what_is_wrong(scene, arguments, change, code, words):
    """Bad ids and bad settings are exit 2, a missing subscription is exit 3."""
    done = run_command("publish", *arguments, environment=scene.settings(**change))
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_run_local_works_the_first_eligible_step_of_a_file(scene, tmp_path):
    """The run is put into Firestore if it is not there; the summary is one JSON object on standard output."""
    run_id, step_ids = scene.put_run(steps=2)
    path = tmp_path / "flow_run.json"
    path.write_text(json.dumps(scene.run(run_id)))
    scene.documents.document(f"flow_runs/{run_id}").delete()
    done = run_command(
        *("run-local", "--flow-run-path", str(path), "--output-summary", "json"),
        environment=scene.settings(PUBSUB_SUBSCRIPTION=None),
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == {
        "status": "SUCCEEDED",
        "runId": run_id,
        "stepId": step_ids[0],
        "outputsManifestGcsUri": f"gs://{scene.bucket}/charts/{run_id}/{step_ids[0]}/manifest.json",
        "items": 2,
        "failures": 0,
        "minImages": 2,
    }
    assert scene.step(run_id, step_ids[0])["status"] == "SUCCEEDED"
    assert scene.step(run_id, step_ids[1])["status"] == "READY"


def test_run_local_options_win_over_the_environment(scene, tmp_path):
    """Mode and bucket may be given by option; a step that fails is exit 1 with its error."""
    run_id, (step_id,) = scene.put_run(charts=1)
    path = tmp_path / "flow_run.json"
    path.write_text(json.dumps(scene.run(run_id)))
    done = run_command(
        *("run-local", "--flow-run-path", str(path), "--step-id", step_id, "--charts-api-mode", "local"),
        *("--charts-bucket", f"gs://{scene.bucket}", "--output-summary", "json"),
        environment=scene.settings(CHARTS_BUCKET=None, CHART_IMG_ACCOUNTS_JSON=None),
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "OHLCV_UNAVAILABLE"
    again = run_command("run-local", "--flow-run-path", str(path), environment=scene.settings())
    assert again.returncode == 1
    assert "NOTHING_ELIGIBLE" in again.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "readable file"),
        ("{", "JSON"),
        ("[]", "JSON object"),
        ("{}", "runId"),
        ('{"runId": "r"}', "steps"),
    ],
)
def test_run_local_refuses_a_file_that_is_no_flow_run(tmp_path, content, words):
    """One sentence about the file, exit 2."""
    path = tmp_path / "flow_run.json"
    if content is not None:
        path.write_text(content)
    done = run_command("run-local", "--flow-run-path", str(path))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_makes_a_gallery_of_twenty_five_charts(tmp_path):
    """The whole main job, without any cloud, in one command."""
    done = run_command("demo", "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    pictures = sorted(tmp_path.rglob("*.png"))
    assert len(pictures) == 25
    assert len(list(tmp_path.rglob("manifest.json"))) == 5
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 25
    assert all(str(picture.relative_to(tmp_path)) in page for picture in pictures)
    assert "http://" not in page.replace("http://127.0.0.1", "")
    assert done.stdout.count("SUCCEEDED") >= 5


@pytest.mark.official
def test_demo_uses_the_emulators_that_the_environment_names(official, tmp_path):
    """Pub/Sub and Firestore are the official ones, Storage is embedded."""
    done = run_command("demo", "--output", str(tmp_path), environment=official.environment(), timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert official.firestore in done.stdout
    assert len(list(tmp_path.rglob("*.png"))) == 25


def test_emulators_print_their_export_lines_and_end_on_a_signal():
    """What is printed is all a daemon and a person's client need."""
    with subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "emulators", "--with-demo-data"],
        env=clean_environment({}),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        names = [process.stdout.readline().split()[1].split("=")[0] for _ in range(8)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert {"PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"} <= set(names)
    assert {"GOOGLE_CLOUD_PROJECT", "PUBSUB_SUBSCRIPTION", "CHARTS_BUCKET"} <= set(names)
