"""Fixtures of the metrics tests: counter increases, and the metrics of a new process."""

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
    """Return a function that returns the increase of every counter; successful calls are separate."""
    before = counts()

    def grown():
        growths = {name: now - before.get(name, 0) for name, now in counts().items()}
        return {name: growth for name, growth in growths.items() if growth and "answered" not in name}

    return grown


@pytest.fixture
def answered():
    """Return a function that returns the number of a backend's successful calls in the test."""
    before = counts()
    series = "backend_calls_total{{{},answered}}"
    return lambda backend: counts()[series.format(backend)] - before[series.format(backend)]


@pytest.fixture(scope="package")
def fresh():
    """Return the metrics of a process that has just started."""
    done = subprocess.run([sys.executable, "-c", FRESH], cwd=ROOT, capture_output=True, text=True, check=True)
    return list(text_string_to_metric_families(done.stdout))
