"""A run with eight steps on a cloud of the test's own, and a worker process."""

from __future__ import annotations

import pytest

from tests.support.fakes import chart_step, run_document
from tests.support.ledger.ledger_process import STEPS, LedgerProcess, StoredRun


@pytest.fixture
def run(documents):
    """A run with eight READY steps."""
    run = StoredRun(documents, "r")
    run.reference.set(run_document({name: chart_step(dependsOn=[]) for name in STEPS}))
    return run


@pytest.fixture
def worker(documents):
    """A worker process."""
    return LedgerProcess(documents)


@pytest.fixture
def calls(cloud):
    """The calls that Firestore gets from now on."""
    cloud.firestore.calls.reset()
    return cloud.firestore.calls
