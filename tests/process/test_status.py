"""`worker-chart-export status` as a real process: in a pipe, on a terminal, and while a daemon works."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from datetime import UTC, datetime, timedelta

import pytest

from localcloud.faults import Fault
from tests.commands import run_command
from tests.daemons import ROOT, clean_environment
from worker_chart_export.ledger.lease import LEASES

ESCAPES = re.compile(r"\x1b\].*?\x1b\\|\x1b\[[0-9;?]*[A-Za-z]")


def needed(scene, **more):
    """Where Firestore and Storage are, the project, and nothing else."""
    names = ("GOOGLE_CLOUD_PROJECT", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")
    return {name: scene.environment[name] for name in names} | more


def status(scene, *arguments, **more):
    """Run `status` in a pipe."""
    return run_command("status", *arguments, environment=needed(scene, **more))


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, *arguments, environment, columns=100, rows=40):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", *arguments],
            cwd=ROOT,
            env=clean_environment({"TERM": "xterm-256color", **environment}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.raw = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)
        os.close(self._master)

    @property
    def text(self):
        """What it wrote, without escape sequences."""
        return ESCAPES.sub("", self.raw)

    def wait_for(self, words, seconds=30):
        """Read until it has written this."""
        deadline = time.monotonic() + seconds
        while words not in self.text:
            assert time.monotonic() < deadline, self.text
            assert self._read(), self.text

    def end(self, seconds=30):
        """Read all of it; its exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, self.text
        return self.process.wait(10)

    def _read(self):
        if select.select([self._master], [], [], 0.2)[0]:
            try:
                self.raw += os.read(self._master, 65536).decode()
            except OSError:  # the other end is closed
                return False
        return True


def put_lease(scene, run_id, step_id, **changed):
    """A lease that lasts."""
    now = datetime.now(UTC)
    fields = {
        "owner": "host-7:1:abc",
        "token": "t",
        "attempt": 2,
        "released": 1,
        "startedAt": now,
        "acquiredAt": now,
        "expiresAt": now + timedelta(hours=1),
    }
    scene.documents.document(f"flow_runs/{run_id}/{LEASES}/{step_id}").set({**fields, **changed})


def test_a_finished_run_is_shown_with_its_artifacts(scene):
    """From the project alone; in a pipe plain, on a terminal a table with links, as JSON the same facts."""
    run_id, (step_id,) = scene.put_run()
    with scene.daemon().started() as daemon:
        scene.publish_step(run_id, step_id)
        daemon.wait_for_event("step_completed")
        assert daemon.terminate() == 0
    uri = f"gs://{scene.bucket}/charts/{run_id}/{step_id}/manifest.json"
    plain = status(scene, run_id)
    assert plain.returncode == 0, plain.stderr
    assert f"step {step_id}  CHART_EXPORT 1d  SUCCEEDED  charts 2/2" in plain.stdout
    assert f"  manifest {uri}\n" in plain.stdout
    assert "\x1b" not in plain.stdout
    steps = json.loads(status(scene, run_id, "--output", "json").stdout)["steps"]
    (chart_step,) = (step for step in steps if step["charts"])
    assert (chart_step["status"], chart_step["charts"]["done"]) == ("SUCCEEDED", 2)
    assert chart_step["manifest"] == uri
    assert chart_step["tookSeconds"] >= 0
    assert set(chart_step["charts"]["stored"].values()) == {
        f"gs://{scene.bucket}/{name}" for name in scene.object_names() if name.endswith(".png")
    }
    with Terminal("status", run_id, environment=needed(scene), columns=80) as terminal:
        assert terminal.end() == 0
    assert scene.environment["STORAGE_EMULATOR_HOST"] in terminal.raw
    assert "".join(uri.split()) in "".join(terminal.text.split())


def test_watch_follows_a_run_until_it_is_settled(scene):
    """In a pipe a line for each change; the exit code is the run's."""
    run_id, (step_id,) = scene.put_run()
    scene.cloud.chart_img.faults.add(Fault(delay_seconds=1.5, times=2))
    with (
        scene.daemon().started() as daemon,
        subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", "status", run_id, "--watch"],
            cwd=ROOT,
            env=clean_environment(needed(scene)),
            stdout=subprocess.PIPE,
            text=True,
        ) as watching,
    ):
        lines = [watching.stdout.readline() for _ in range(3)]
        assert any(f"step {step_id}  CHART_EXPORT 1d  READY" in line for line in lines)
        scene.publish_step(run_id, step_id)
        rest = watching.stdout.read()
        assert watching.wait(10) == 0
        assert daemon.terminate() == 0
    changes = [line for line in rest.splitlines() if step_id in line]
    assert "RUNNING" in changes[0]
    assert "lease live (" in changes[0]
    assert "SUCCEEDED  charts 2/2" in changes[-1]


def test_watch_on_a_terminal_ends_cleanly_on_a_signal(scene):
    """Exit 0, the last view stays, and the cursor is there again."""
    run_id, (step_id,) = scene.put_run(status="RUNNING")
    put_lease(scene, run_id, step_id)
    with Terminal("status", run_id, "--watch", environment=needed(scene)) as terminal:
        terminal.wait_for("held by host-7:1:abc")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
    assert "attempt 2 (1 released)" in terminal.text[terminal.text.rindex(run_id) :]


def test_watch_outlasts_an_absent_firestore(scene):
    """The last view stays, with a line that says so."""
    run_id, (step_id,) = scene.put_run(status="RUNNING")
    put_lease(scene, run_id, step_id)
    with Terminal("status", run_id, "--watch", environment=needed(scene)) as terminal:
        terminal.wait_for("held by host-7:1:abc")
        scene.cloud.firestore.faults.add(Fault(method="RunQuery", error="RESOURCE_EXHAUSTED"))
        terminal.wait_for("this is how it was, trying again")
        scene.cloud.firestore.faults.clear()
        scene.documents.document(f"flow_runs/{run_id}").update({"status": "CANCELLED"})
        terminal.wait_for("CANCELLED")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0


def test_a_failed_chart_step_is_exit_1(scene):
    """So that a script sees it; other steps don't count."""
    error = {"code": "RENDER_FAILED", "message": "No [red]way[/]."}
    run_id, _ = scene.put_run(status="FAILED", error=error)
    for options in ([], ["--watch"]):
        done = status(scene, run_id, *options)
        assert done.returncode == 1
        assert "error RENDER_FAILED: No [red]way[/]." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "change", "code", "words"),
    [
        (["no-such-run", "--watch"], {}, 1, "there is no such run"),
        (["a/b"], {}, 2, "runId"),
        (["run"], {"GOOGLE_CLOUD_PROJECT": ""}, 2, "GOOGLE_CLOUD_PROJECT"),
        (["run", "--watch"], {"CHARTS_BUCKET": "charts"}, 2, "CHARTS_BUCKET"),
    ],
)
def test_status_says_what_is_wrong(scene, arguments, change, code, words):
    """No such run is exit 1, bad arguments and settings are exit 2."""
    done = status(scene, *arguments, **change)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_firestore_that_refuses_is_exit_3(scene):
    """As with every command."""
    scene.cloud.firestore.faults.add(Fault(method="RunQuery", error="PERMISSION_DENIED"))
    done = status(scene, "run")
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")


@pytest.mark.official
def test_the_official_firestore_gives_the_same_picture(official_scene):
    """Run and leases of one moment."""
    run_id, (first, second) = official_scene.put_run(steps=2, status="RUNNING")
    put_lease(official_scene, run_id, first)
    done = status(official_scene, run_id, "--output", "json")
    assert done.returncode == 0, done.stderr
    states = {step["stepId"]: step["lease"]["state"] for step in json.loads(done.stdout)["steps"]}
    assert (states[first], states[second]) == ("live", "unleased")
