"""Commands whose output nobody reads, or that can't be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from google.cloud import firestore

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
