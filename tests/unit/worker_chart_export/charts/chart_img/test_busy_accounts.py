"""Accounts that give no chart in time: too busy, silent, or with a long `Retry-After`."""

from __future__ import annotations

import time
from functools import partial

import pytest

from localcloud import Fault
from tests.support.charts.chart_img_samples import account, at_once, used
from tests.support.fakes import chart_request, scope_of
from worker_chart_export.charts.chart_img.provider import ChartImgProvider
from worker_chart_export.errors import StepTimedOut

FIRST, SECOND = account("first", key="key-one"), account("second", key="key-two")


def _made_by(image):
    return image.meta["accountId"]


class TestTooBusy:
    """An account whose rate leaves no call within the step's time."""

    SLOW = account("first", key="key-one", rate_per_second=0.01, burst=1)

    def test_the_next_account_is_called_at_once(self, make):
        """When an account is too busy the next one makes the chart at once."""
        provider = make(self.SLOW, SECOND)
        started = time.monotonic()
        images = [provider.chart(chart_request(scope=scope_of(20))) for _ in range(3)]
        assert [_made_by(image) for image in images] == ["first", "second", "second"]
        assert time.monotonic() - started < 5

    def test_without_another_one_the_chart_fails_at_once_as_a_timeout(self, make, documents):
        """Without another account the chart fails at once as a timeout, without a count or fallback."""
        provider = make(self.SLOW)
        provider.chart(chart_request())
        started = time.monotonic()
        with pytest.raises(StepTimedOut, match=r"time is too short.*first: its rate limit does not allow"):
            provider.chart(chart_request(scope=scope_of(20)))
        assert time.monotonic() - started < 5
        assert used(documents, "first") == 1


def test_a_silent_account_is_left_for_the_next_one(make, cloud, monkeypatch):
    """Charts that wait for a silent account's first response use the next account."""
    monkeypatch.setattr(f"{ChartImgProvider.__module__}.FIRST_ANSWER_MAX_WAIT_SECONDS", 0.3)
    cloud.chart_img.faults.add(Fault(match="key-one", delay_seconds=60))
    provider = make(FIRST, SECOND)
    results = at_once([partial(provider.chart, chart_request(scope=scope_of(4))) for _ in range(6)])
    timed_out = [result for result in results if isinstance(result, StepTimedOut)]
    assert len(timed_out) == 1
    assert [_made_by(image) for image in results if image not in timed_out] == ["second"] * 5
    assert cloud.chart_img.calls_per_key.as_dict() == {"key-one": 1, "key-two": 5}


def test_a_silent_account_alone_is_waited_for(make, cloud, monkeypatch):
    """The only account is waited for, even when it is silent."""
    monkeypatch.setattr(f"{ChartImgProvider.__module__}.FIRST_ANSWER_MAX_WAIT_SECONDS", 0.05)
    cloud.chart_img.faults.add(Fault(match="key-one", delay_seconds=0.5, times=1))
    provider = make(FIRST)
    images = at_once([partial(provider.chart, chart_request()) for _ in range(4)])
    assert [_made_by(image) for image in images] == ["first"] * 4
