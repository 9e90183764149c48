"""Commands whose output nobody reads, or that can't be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from google.cloud import firestore

from localcloud.faults import Fault
from tests.support.process.commands import run_command
from tests.support.process.daemons import ROOT, clean_environment
from tests.support.process.fork_server import ForkedProcess

TEMPLATES = sorted(
    str(path) for path in Path(ROOT, "worker_chart_export/data/samples/templates").glob("*.json")
)


def run_without_reader(*arguments, environment):
    """Run a command whose standard output is a pipe with a closed reader; return its exit code."""
    reader, writer = os.pipe()
    os.close(reader)
    with Path(os.devnull).open("wb") as null:
        process = ForkedProcess(
            "daemon.cli",
            arguments,
            environment=clean_environment(environment),
            stdout=writer,
            stderr=null.fileno(),
        )
        os.close(writer)
        return process.wait(60)


@pytest.mark.parametrize(("status", "code"), [("READY", 0), ("FAILED", 1)])
@pytest.mark.parametrize("form", ["text", "json"])
def test_the_exit_code_is_that_of_the_job_without_a_reader(deployment, status, code, form):
    """`status | head -1`: the exit code says how the run is, not that the pipe was closed."""
    run_id, (step_id,) = deployment.put_run()
    with closing(firestore.Client(project=deployment.project)) as client:
        client.document(f"flow_runs/{run_id}").update({f"steps.`{step_id}`.status": status})
    found = run_without_reader("status", run_id, "--output", form, environment=deployment.settings())
    assert found == code


def test_a_job_is_done_to_its_end_without_a_reader(deployment):
    """`templates push | head -1` stores all templates."""
    assert len(TEMPLATES) > 1
    assert run_without_reader("templates", "push", *TEMPLATES, environment=deployment.settings()) == 0
    with closing(firestore.Client(project=deployment.project)) as client:
        stored = {document.id for document in client.collection("chart_templates").list_documents()}
    assert {json.loads(Path(path).read_text(encoding="utf-8"))["id"] for path in TEMPLATES} <= stored


def test_watching_ends_when_its_reader_has_gone(deployment):
    """`status --watch | head -1` ends at the next line that it can't write."""
    run_id, _ = deployment.put_run()
    assert run_without_reader("status", run_id, "--watch", environment=deployment.settings()) == 0


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        ("> /dev/full", 1, "error: the output can't be written: No space left on device"),
        (">&-", 0, ""),
        ("> /dev/null 2>&-", 0, ""),
    ],
)
def test_output_that_cant_be_written_is_said(redirection, code, message):
    """A full disk is an error in one line; a closed standard output or error is none."""
    ended = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m daemon.cli --version {redirection}', sys.executable],
        cwd=ROOT,
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr.strip()) == (code, message)


def test_characters_that_the_terminal_lacks_are_escaped():
    """A character outside the terminal's encoding ends no command."""
    ended = subprocess.run(
        [sys.executable, "-m", "daemon.cli", "publish", "r\u00fcn"],
        cwd=ROOT,
        env=clean_environment({"PYTHONIOENCODING": "ascii", "COLUMNS": "160"}),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert rb"r\xfcn" in ended.stderr


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "> /dev/full"])
def test_a_daemon_without_an_output_works_and_stops(deployment, log_format, closed):
    """A closed standard output, or a full disk, changes neither the work nor the exit code."""
    run_id, (step_id,) = deployment.put_run()
    daemon = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$0" -m daemon {closed}', sys.executable],
        cwd=ROOT,
        env=clean_environment(deployment.settings(LOG_FORMAT=log_format)),
        stderr=subprocess.PIPE,
    )
    deployment.publish_step(run_id, step_id)
    try:
        deadline = time.monotonic() + 40
        while deployment.step(run_id, step_id)["status"] != "SUCCEEDED":
            assert daemon.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        daemon.terminate()
        assert (daemon.communicate(timeout=30)[1], daemon.returncode) == (b"", 0)
    finally:
        daemon.kill()


def test_a_console_gets_every_line_in_its_own_encoding(deployment):
    """Characters that the terminal lacks are escaped, in the lines of steps and in those of an answer."""
    words = "d\u00e9j\u00e0 \u2026 \ud83d\x1b[31m"
    deployment.cloud.chart_img.faults.add(Fault(error=422, message=words))
    run_id, (step_id,) = deployment.put_run(charts=1)
    with deployment.daemon(fresh=True, LOG_FORMAT="console", PYTHONIOENCODING="ascii") as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_until(lambda: any("message_settled" in line for line in daemon.other_output), "", 40)
        assert daemon.terminate() == 0
    written = "".join(daemon.other_output)
    for event in ("daemon_started", "claim_attempt", "chart_failed", "step_completed", "daemon_stopped"):
        assert event in written
    assert written.isascii()
    assert "\x1b" not in written
    message = deployment.step(run_id, step_id)["error"]["message"]
    assert message.isprintable()
    shown = run_command("status", run_id, environment=deployment.settings(PYTHONIOENCODING="ascii"))
    assert (shown.returncode, shown.stderr) == (1, "")
