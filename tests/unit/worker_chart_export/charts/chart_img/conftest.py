"""Fixtures of `real` mode: providers on the embedded services, without long pauses."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest

from tests.support.charts.chart_img_samples import provider_on
from worker_chart_export.charts.chart_img import attempts as attempts_module
from worker_chart_export.charts.chart_img.quota import QuotaLedger


@pytest.fixture
def make(cloud, documents):
    """Return a function that makes providers on the stand-in, each as in its own process."""
    with contextlib.ExitStack() as opened:
        build = partial(provider_on, cloud.chart_img.url, documents)
        yield lambda *accounts, **changes: opened.enter_context(build(*accounts, **changes))


@pytest.fixture
def provider(make):
    """Return a provider of one account."""
    return make()


@pytest.fixture
def _no_pauses(monkeypatch):
    """Shorten the pauses between attempts; they have their own tests.

    Without any pause an attempt that is repeated until its time is over takes a whole processor.
    """
    monkeypatch.setattr(attempts_module, "pause_seconds", lambda _answer, _failures: 0.02)


@pytest.fixture
def quota(documents):
    """Return one process's quota ledger."""
    return QuotaLedger(documents)
