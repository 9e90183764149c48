"""`worker-chart-export status` as a real process: in a pipe, on a terminal, during the work."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

from localcloud.faults import Fault
from tests.support.process.commands import run_command
from tests.support.process.daemons import ROOT, clean_environment
from tests.support.process.terminal import Terminal
from worker_chart_export.ledger.lease import LEASES


def needed(deployment):
    """Return the addresses of Firestore and Storage and the project."""
    names = ("GOOGLE_CLOUD_PROJECT", "FIRESTORE_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")
    return {name: deployment.environment[name] for name in names}


def watching_in_a_pipe(deployment, run_id):
    """Run `status --watch` with its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "status", run_id, "--watch"],
        cwd=ROOT,
        env=clean_environment(needed(deployment)),
        stdout=subprocess.PIPE,
        text=True,
    )


def put_lease(deployment, run_id, step_id, **changed):
    """Store a valid lease."""
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
    deployment.documents.document(f"flow_runs/{run_id}/{LEASES}/{step_id}").set({**fields, **changed})


def test_a_run_is_followed_until_it_is_finished_and_shown_with_its_artifacts(deployment):
    """In a pipe there is one line per change; on a terminal a table with links at the end."""
    run_id, (step_id,) = deployment.put_run()
    seen_running = threading.Event()
    deployment.cloud.chart_img.faults.add(Fault(before=lambda _: seen_running.wait(20)))
    with deployment.daemon().started() as daemon, watching_in_a_pipe(deployment, run_id) as watching:
        lines = [watching.stdout.readline() for _ in range(3)]
        assert any(f"step {step_id}  CHART_EXPORT 1d  READY" in line for line in lines)
        deployment.publish_step(run_id, step_id)
        running = watching.stdout.readline()
        seen_running.set()
        assert "RUNNING" in running
        assert "lease live (" in running
        rest = watching.stdout.read()
        assert watching.wait(10) == 0
        assert daemon.terminate() == 0
    assert f"step {step_id}  CHART_EXPORT 1d  SUCCEEDED  charts 2/2" in rest.splitlines()[-1]
    assert "\x1b" not in rest
    with Terminal("status", run_id, environment=needed(deployment), columns=80) as terminal:
        assert terminal.end() == 0
    assert deployment.environment["STORAGE_EMULATOR_HOST"] in terminal.raw
    uri = f"gs://{deployment.bucket}/charts/{run_id}/{step_id}/manifest.json"
    assert "".join(uri.split()) in "".join(terminal.text.split())


def test_watch_on_a_terminal_outlasts_an_absent_firestore_until_a_signal_ends_it(deployment):
    """`--watch` survives a Firestore outage with its last view, and a signal ends it with exit code 0."""
    run_id, (step_id,) = deployment.put_run(status="RUNNING")
    put_lease(deployment, run_id, step_id)
    with Terminal("status", run_id, "--watch", environment=needed(deployment)) as terminal:
        terminal.wait_for("held by host-7:1:abc")
        deployment.cloud.firestore.faults.add(Fault(method="RunQuery", error="RESOURCE_EXHAUSTED"))
        terminal.wait_for("the last known state is shown, trying")
        deployment.cloud.firestore.faults.clear()
        deployment.documents.document(f"flow_runs/{run_id}").update({"status": "CANCELLED"})
        terminal.wait_for("CANCELLED")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
    assert "attempt 2 (1 released)" in terminal.text[terminal.text.rindex(run_id) :]


def test_a_failed_chart_step_is_exit_1(deployment):
    """A failed chart step gives exit code 1 and plain lines in a pipe, with the project alone."""
    error = {"code": "RENDER_FAILED", "message": "No [red]way[/]."}
    run_id, _ = deployment.put_run(status="FAILED", error=error)
    done = run_command("status", run_id, environment=needed(deployment))
    assert (done.returncode, done.stderr) == (1, "")
    assert "error RENDER_FAILED: No [red]way[/]." in done.stdout
