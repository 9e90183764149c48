"""Workers with `claim_step` that are killed, frozen, interrupted and forked during a step."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from localcloud.faults import Fault
from tests.support.process.daemons import ROOT
from tests.support.process.renderers import processor_ticks, wait_until

LONG = 600


class Worker:
    """A process of `tests/support/process/step_worker.py`."""

    def __init__(self, deployment, run_id, step_id, *, name, lease_seconds):
        self.uri = f"gs://results/{name}.json"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.process.step_worker"),
                *(run_id, step_id, str(lease_seconds), self.uri),
            ],
            env=deployment.environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, *words):
        """Wait until it prints one of these lines; return that line."""
        for line in self.process.stdout:
            if line.strip() in words:
                return line.strip()
        pytest.fail(f"it ended without {words}")

    def do(self, word):
        """Give it an order."""
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()


@pytest.fixture
def step(deployment):
    """Return a READY step."""
    run_id, (step_id,) = deployment.put_run()
    return run_id, step_id


@pytest.fixture
def start(deployment, step):
    """Start workers on that step; end them after the test."""
    workers = []

    def start(name, lease_seconds):
        workers.append(Worker(deployment, *step, name=name, lease_seconds=lease_seconds))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


def _uri(deployment, step):
    return deployment.step(*step)["outputs"].get("gcs_uri")


def test_the_step_of_a_killed_worker_is_taken_over_when_its_lease_ends(deployment, step, start):
    """SIGKILL leaves a lease that nobody renews."""
    killed = start("killed", lease_seconds=2)
    killed.wait_for("claimed 1")
    other = start("other", lease_seconds=2)
    other.wait_for("step_running")
    killed.process.kill()
    other.wait_for("claimed 2")
    other.do("succeed")
    other.wait_for("SUCCEEDED")
    assert _uri(deployment, step) == other.uri


def test_a_worker_that_was_frozen_past_its_lease_writes_nothing(deployment, step, start):
    """SIGSTOP: another worker finishes the step. The frozen one finds out when it goes on."""
    frozen = start("frozen", lease_seconds=2)
    frozen.wait_for("claimed 1")
    frozen.process.send_signal(signal.SIGSTOP)
    other = start("other", lease_seconds=2)
    other.wait_for("claimed 2")
    frozen.do("succeed")
    frozen.process.send_signal(signal.SIGCONT)
    frozen.wait_for("LeaseLost")
    other.do("succeed")
    other.wait_for("SUCCEEDED")
    assert _uri(deployment, step) == other.uri


def test_an_interrupted_worker_leaves_its_step_at_once(start):
    """SIGINT releases the step, however long its lease is."""
    interrupted = start("interrupted", lease_seconds=LONG)
    interrupted.wait_for("claimed 1")
    interrupted.process.send_signal(signal.SIGINT)
    interrupted.wait_for("KeyboardInterrupt")
    start("other", lease_seconds=LONG).wait_for("claimed 2")


def test_a_worker_that_is_interrupted_during_its_claim_leaves_the_step(deployment, start):
    """The claim is committed when SIGINT comes, but the worker does not know it yet."""
    firestore = deployment.cloud.firestore
    firestore.faults.add(Fault(method="Commit", after_effect=True, delay_seconds=LONG, times=1))
    before = firestore.calls["Commit"]
    interrupted = start("interrupted", lease_seconds=LONG)
    assert firestore.calls.wait_for("Commit", before + 1, timeout_seconds=30)
    wait_until(lambda: _sleeps(interrupted.process.pid), "the worker waits for the answer")
    interrupted.process.send_signal(signal.SIGINT)
    interrupted.wait_for("KeyboardInterrupt")
    start("other", lease_seconds=LONG).wait_for("claimed 2")


def _sleeps(pid):
    """Return whether a process used no processor time for a while.

    The server counts a call while gRPC still sends it. A KeyboardInterrupt in that moment may leave a lock of
    gRPC's channel locked for ever.
    """
    before = processor_ticks(pid)
    time.sleep(0.3)
    return processor_ticks(pid) == before


def test_a_forked_process_neither_uses_nor_ends_the_claim(deployment, step, start):
    """The child is refused and leaves the block; its parent still holds the step."""
    parent = start("parent", lease_seconds=LONG)
    parent.wait_for("claimed 1")
    parent.do("fork")
    parent.wait_for("child 7")
    parent.do("succeed")
    parent.wait_for("SUCCEEDED")
    assert _uri(deployment, step) == parent.uri
