"""What the tests of `real` mode share: providers on the embedded services, and no long pauses."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest

from tests.support.charts.chart_img_samples import provider_on
from worker_chart_export.charts.chart_img import provider as provider_module
from worker_chart_export.charts.chart_img.quota import QuotaLedger


@pytest.fixture
def make(cloud, documents):
    """Makes providers on the stand-in, each as a process of its own has it: `make(account, ...)`."""
    with contextlib.ExitStack() as opened:
        build = partial(provider_on, cloud.chart_img.url, documents)
        yield lambda *accounts, **changes: opened.enter_context(build(*accounts, **changes))


@pytest.fixture
def provider(make):
    """A provider of one account."""
    return make()


@pytest.fixture
def _no_pauses(monkeypatch):
    """Attempts follow at once. The pauses have their own tests."""
    monkeypatch.setattr(provider_module, "pause_seconds", lambda _answer, _failures: 0.0)


@pytest.fixture
def quota(documents):
    """One process's quota ledger."""
    return QuotaLedger(documents)
