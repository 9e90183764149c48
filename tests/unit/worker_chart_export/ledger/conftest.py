"""Fixtures: a run with eight steps on a new cloud, and a worker process."""

from __future__ import annotations

import pytest

from tests.support.fakes import chart_step, run_document
from tests.support.ledger.ledger_process import STEPS, LedgerProcess, StoredRun


@pytest.fixture
def run(documents):
    """Create a run with eight READY steps."""
    run = StoredRun(documents, "r")
    run.reference.set(run_document({name: chart_step(dependsOn=[]) for name in STEPS}))
    return run


@pytest.fixture
def worker(documents):
    """Return a worker process."""
    return LedgerProcess(documents)


@pytest.fixture
def calls(cloud):
    """Return the calls that Firestore receives from now on."""
    cloud.firestore.calls.reset()
    return cloud.firestore.calls
