"""What the tests of the metrics share: what a test has made grow, and how a new process begins."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.metric_counts import counts
from tests.support.process.daemons import ROOT

FRESH = "from worker_chart_export.observability import metrics; print(metrics.exposition('')[0].decode())"


@pytest.fixture
def grown():
    """Call it for every counter that has grown, and by how much; calls that went well stand apart."""
    before = counts()

    def grown():
        growths = {name: now - before.get(name, 0) for name, now in counts().items()}
        return {name: growth for name, growth in growths.items() if growth and "answered" not in name}

    return grown


@pytest.fixture
def answered():
    """Call it for how many calls of a backend were answered during the test."""
    before = counts()
    series = "backend_calls_total{{{},answered}}"
    return lambda backend: counts()[series.format(backend)] - before[series.format(backend)]


@pytest.fixture(scope="package")
def fresh():
    """The metrics of a process that has just started."""
    done = subprocess.run([sys.executable, "-c", FRESH], cwd=ROOT, capture_output=True, text=True, check=True)
    return list(text_string_to_metric_families(done.stdout))
