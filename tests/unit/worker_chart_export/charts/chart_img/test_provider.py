"""`real` mode over the accounts: their order, when one is skipped, and what is paid."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from functools import partial

import pytest

from localcloud import Fault
from tests.support.charts.chart_img_samples import KEY, account, at_once, usage, used
from tests.support.fakes import HandClock, chart_request, scope_of
from worker_chart_export.charts.chart_img.usage_document import USAGE
from worker_chart_export.errors import (
    ChartApiFailed,
    ChartApiLimitExceeded,
    ChartTooLarge,
    Interrupted,
    StepTimedOut,
)

FIRST, SECOND = account("first", key="key-one"), account("second", key="key-two")
LIMITS = "chart_api_limit_exceeded"


def _answer(cloud, name, **fields):
    cloud.chart_img.faults.add(Fault(answer=name, **fields))


def _calls(cloud):
    return cloud.chart_img.calls_per_key.as_dict()


def _of_call(line):
    names = ("event", "httpStatus", "outcome", "accountId", "apiMessage", "callNumber")
    return tuple(line.get(name) for name in names)


def _made_by(image):
    return image.meta["accountId"]


class TestCall:
    """One call."""

    def test_a_chart_has_its_account(self, provider, cloud, documents):
        """A call sends the key in its header and the template's body unchanged, and is counted."""
        image = provider.chart(chart_request(width=640, height=400, theme="dark"))
        assert (image.provider, image.meta) == ("chart-img", {"accountId": "acc-1"})
        (call,) = cloud.chart_img.requests
        assert call.key == KEY
        assert call.body == {
            "symbol": "NYSE:IBM",
            "interval": "1D",
            "timezone": "Etc/UTC",
            "width": 640,
            "height": 400,
            "theme": "dark",
        }
        assert used(documents) == 1

    def test_it_is_counted_before_it_is_made(self, provider, cloud, documents):
        """A call is counted before it is made, so that a crash never overspends."""
        counted = []
        cloud.chart_img.faults.add(Fault(before=lambda _request: counted.append(used(documents))))
        for _ in range(3):
            provider.chart(chart_request())
        assert counted == [1, 2, 3]

    def test_each_call_is_logged_with_its_status(self, provider, cloud, log_lines):
        """Each call is logged with its status and outcome."""
        _answer(cloud, "not_found", times=1)
        with pytest.raises(ChartApiFailed):
            provider.chart(chart_request())
        provider.chart(chart_request())
        assert [_of_call(line) for line in log_lines()] == [
            ("chart_api_call_finished", 404, "refused", "acc-1", "Not Found", 1),
            ("chart_api_call_finished", 200, "ok", "acc-1", None, 1),
        ]

    @pytest.mark.usefixtures("_no_pauses")
    def test_the_calls_of_a_chart_are_numbered(self, make, cloud, log_lines):
        """The calls of a chart are numbered over all accounts, each with the API's or the network's error."""
        _answer(cloud, "server_error", times=1)
        cloud.chart_img.faults.add(Fault(reset=True, times=1))
        _answer(cloud, "forbidden", times=1)
        make(FIRST, SECOND).chart(chart_request())
        lines = [line for line in log_lines() if line["event"] == "chart_api_call_finished"]
        assert [_of_call(line)[1:] for line in lines] == [
            (500, "trouble", "first", "Something Went Wrong", 1),
            (0, "no_answer", "first", lines[1]["apiMessage"], 2),
            (403, "bad_key", "first", "Forbidden", 3),
            (200, "ok", "second", None, 4),
        ]
        assert lines[1]["apiMessage"].startswith("ProtocolError")

    @pytest.mark.parametrize("scope", ["over", "stopped"])
    def test_nothing_is_counted_or_called_after_the_time(self, provider, cloud, documents, scope):
        """After the step's time or a stop nothing is counted or called."""
        ended = scope_of(0 if scope == "over" else 30)
        if scope == "stopped":
            ended.stop(Interrupted("stop"))
        with pytest.raises(StepTimedOut if scope == "over" else Interrupted):
            provider.chart(chart_request(scope=ended))
        assert (_calls(cloud), usage(documents)) == ({}, None)

    def test_nothing_is_counted_after_the_time_by_a_process_with_a_proven_key(
        self, provider, cloud, documents
    ):
        """After the time nothing is counted or called, also by a process with a proven key."""
        provider.chart(chart_request())
        ended = scope_of()
        ended.stop(Interrupted("stop"))
        with pytest.raises(Interrupted):
            provider.chart(chart_request(scope=ended))
        assert (cloud.chart_img.calls["advanced-chart"], used(documents)) == (1, 1)

    def test_a_too_large_body_is_not_read(self, provider, cloud, log_lines):
        """A too large body is not read to its end and not requested again."""
        _answer(cloud, "too_large")
        with pytest.raises(ChartTooLarge):
            provider.chart(chart_request())
        assert _calls(cloud) == {KEY: 1}
        (line,) = log_lines()
        assert (line["httpStatus"], line["outcome"]) == (200, "too_large")

    def test_a_body_too_large_proves_the_key(self, provider, cloud):
        """A too large body proves the key, so that no chart waits for the first response."""
        _answer(cloud, "too_large", times=1)
        with pytest.raises(ChartTooLarge):
            provider.chart(chart_request())
        cloud.chart_img.faults.add(Fault(delay_seconds=1))
        started = time.monotonic()
        at_once([partial(provider.chart, chart_request()) for _ in range(4)])
        assert time.monotonic() - started < 1.8

    def test_a_picture_larger_than_readers_accept_fails(self, make, cloud):
        """A picture larger than readers accept fails at once, because it would come again."""
        with pytest.raises(ChartTooLarge):
            make(max_png_bytes=1024).chart(chart_request(width=2048, height=1920))
        assert _calls(cloud) == {KEY: 1}


class TestPriority:
    """The accounts in order of priority."""

    def test_the_first_account_is_used_while_it_lasts(self, make, cloud):
        """The first account is used until its quota ends, then the second."""
        provider = make(account("first", key="key-one", daily_limit=2), SECOND)
        assert [_made_by(provider.chart(chart_request())) for _ in range(4)] == ["first"] * 2 + ["second"] * 2
        assert _calls(cloud) == {"key-one": 2, "key-two": 2}

    @pytest.mark.parametrize("answer", ["forbidden", "invalid_request"])
    def test_a_refused_key_is_called_once_and_then_skipped(self, make, cloud, answer, log_lines):
        """A refused key is called once and logged once; the chart comes from the next account."""
        _answer(cloud, answer, match="key-one")
        provider = make(FIRST, SECOND)
        assert [_made_by(provider.chart(chart_request())) for _ in range(5)] == ["second"] * 5
        assert _calls(cloud) == {"key-one": 1, "key-two": 5}
        (line,) = [each for each in log_lines() if each["event"] == "chart_api_key_refused"]
        assert (line["severity"], line["accountId"]) == ("ERROR", "first")

    def test_a_refused_key_is_called_once_however_many_charts_wait(self, make, cloud, documents):
        """A refused key is called once for any number of waiting charts."""
        cloud.chart_img.configure({"key-two": None})
        cloud.chart_img.faults.add(Fault(match="key-one", delay_seconds=0.2))
        provider = make(FIRST, SECOND)
        images = at_once([partial(provider.chart, chart_request()) for _ in range(24)])
        assert [_made_by(image) for image in images] == ["second"] * 24
        assert _calls(cloud) == {"key-one": 1, "key-two": 24}
        assert used(documents, "first") == 1

    def test_a_refused_key_is_tried_again_with_one_call(self, make, cloud):
        """A key that is refused once is tried again after a minute, with one call, and then used again."""
        clock = HandClock()
        _answer(cloud, "forbidden", match="key-one", times=2)
        provider = make(FIRST, SECOND, clock=clock)

        def charts(count):
            images = at_once([partial(provider.chart, chart_request()) for _ in range(count)])
            return Counter(_made_by(image) for image in images), _calls(cloud).get("key-one")

        assert charts(8) == ({"second": 8}, 1)
        clock.advance(59)
        assert charts(8) == ({"second": 8}, 1)
        clock.advance(2)
        assert charts(8) == ({"second": 8}, 2)
        clock.advance(119)
        assert charts(8) == ({"second": 8}, 2)
        clock.advance(2)
        assert charts(1) == ({"first": 1}, 3)
        assert charts(8) == ({"first": 8}, 11)

    def test_the_only_key_is_tried_again(self, make, cloud):
        """With one account, all waiting charts are made once the refused key is valid again."""
        clock = HandClock()
        _answer(cloud, "forbidden", times=1)
        provider = make(FIRST, clock=clock)
        with pytest.raises(ChartApiLimitExceeded, match="refused"):
            provider.chart(chart_request())
        clock.advance(61)
        images = at_once([partial(provider.chart, chart_request()) for _ in range(8)])
        assert [_made_by(image) for image in images] == ["first"] * 8
        assert _calls(cloud) == {"key-one": 9}

    @pytest.mark.usefixtures("_no_pauses")
    def test_a_transient_failure_is_no_first_answer(self, make, cloud):
        """A transient failure does not count as the first response: the key can still be refused."""
        cloud.chart_img.configure({"key-two": None})
        _answer(cloud, "server_error", match="key-one", times=3)
        provider = make(FIRST, SECOND)
        images = at_once([partial(provider.chart, chart_request()) for _ in range(16)])
        assert [_made_by(image) for image in images] == ["second"] * 16
        statuses = [call.status for call in cloud.chart_img.requests if call.key == "key-one"]
        assert statuses == [500, 500, 500, 403]

    @pytest.mark.parametrize("answer", ["limit_exceeded", "limit_exceeded_200"])
    def test_an_account_that_reports_it_is_used_up_is_skipped(self, make, cloud, answer, log_lines):
        """A used-up account, reported with any status, is skipped and logged once."""
        _answer(cloud, answer, match="key-one")
        provider = make(FIRST, SECOND)
        assert [_made_by(provider.chart(chart_request())) for _ in range(3)] == ["second"] * 3
        assert _calls(cloud) == {"key-one": 1, "key-two": 3}
        assert [line["accountId"] for line in log_lines() if line["event"] == LIMITS] == ["first"]

    def test_an_account_is_used_again_once_its_window_has_ended(self, make, cloud, server_time):
        """An account is used again from zero when its window has ended."""
        clock = HandClock()
        server_time.set(clock.now())
        _answer(cloud, "limit_exceeded", match="key-one", times=1)
        provider = make(FIRST, SECOND, clock=clock)
        assert _made_by(provider.chart(chart_request())) == "second"
        clock.advance(11 * 3600)
        assert _made_by(provider.chart(chart_request())) == "second"
        clock.advance(2 * 3600)
        server_time.set(clock.now())
        assert _made_by(provider.chart(chart_request())) == "first"

    @pytest.mark.parametrize("answer", ["over_resolution", "over_parameters"])
    def test_a_plan_too_small_is_skipped_for_all_charts_of_that_size(self, make, cloud, documents, answer):
        """A too small plan is called once for charts of a size; a smaller chart still uses it."""
        _answer(cloud, answer, match="key-one NYSE:LARGE")
        provider = make(FIRST, SECOND)
        large = {"symbol": "NYSE:LARGE", "studies": [{"name": "Volume"}] * 4}
        larger = large | {"width": 1920, "height": 1080}
        charts = [large, large, larger, {}, large]
        assert [_made_by(provider.chart(chart_request(**asked))) for asked in charts] == [
            *("second", "second", "second", "first", "second")
        ]
        assert _calls(cloud) == {"key-one": 2, "key-two": 4}
        assert used(documents, "first") == 2

    def test_a_plan_that_is_known_to_be_too_small_costs_no_call(self, make, cloud, documents):
        """A plan with known bounds is not called for larger studies, drawings or pixels."""
        basic, pro = (
            account("first", key="key-one", plan="BASIC"),
            account("second", key="key-two", plan="PRO"),
        )
        provider = make(basic, pro)
        four = {"studies": [{"name": "Volume"}] * 3, "drawings": [{"name": "Text"}]}
        assert _made_by(provider.chart(chart_request(**four))) == "second"
        assert _made_by(provider.chart(chart_request(width=1024, height=600))) == "second"
        assert (_calls(cloud), usage(documents, "first")) == ({"key-two": 2}, None)


class TestNoneLeft:
    """Without a usable account the chart fails without a call."""

    def test_it_is_known_before_when_no_account_can_make_the_chart(self, make, cloud):
        """A chart that no account's plan allows is known to fail; one that an account may make is not."""
        small = account("small", key="key-one", plan="BASIC")
        large = chart_request(width=1920, height=1080)
        failure = make(small).known_failure(large)
        assert isinstance(failure, ChartApiLimitExceeded)
        assert failure.details["accounts"] == {
            "small": "plan too small: 1920x1080 pixels, its plan allows 800x600"
        }
        assert make(small).known_failure(chart_request(width=800, height=600)) is None
        assert make(small, SECOND).known_failure(large) is None
        assert _calls(cloud) == {}

    def test_used_up_accounts(self, make, cloud, documents, log_lines):
        """Used-up accounts are logged once each, for many charts."""
        documents.document(f"{USAGE}/first").set({"dailyLimit": 0})
        provider = make(FIRST, account("second", key="key-two", daily_limit=2))
        results = at_once([partial(provider.chart, chart_request()) for _ in range(20)])
        errors = [result for result in results if isinstance(result, ChartApiLimitExceeded)]
        assert (len(errors), _calls(cloud), used(documents, "second")) == (18, {"key-two": 2}, 2)
        assert errors[0].details == {
            "accounts": {"first": "used up for today", "second": "used up for today"}
        }
        assert [line["accountId"] for line in log_lines() if line["event"] == LIMITS] == ["first", "second"]

    def test_dead_keys(self, make, cloud):
        """With only refused keys the error has the reasons."""
        _answer(cloud, "forbidden")
        provider = make(FIRST, SECOND)
        for _ in range(3):
            with pytest.raises(
                ChartApiLimitExceeded, match=r"first: its key is refused \(403 Forbidden\); second: its key"
            ):
                provider.chart(chart_request())
        assert _calls(cloud) == {"key-one": 1, "key-two": 1}

    def test_plans_too_small(self, make, cloud):
        """With only too small plans the error has the API's message and the limit of the settings."""
        _answer(cloud, "over_parameters", match="key-one")
        small = account("second", key="key-two", max_parameters=1)
        with pytest.raises(ChartApiLimitExceeded) as caught:
            make(FIRST, small).chart(chart_request(studies=[{"name": "Volume"}] * 4))
        assert caught.value.details["accounts"] == {
            "first": "plan too small: Exceed Max Usage Parameter Limit (3)",
            "second": "plan too small: 4 studies and drawings, its plan allows 1",
        }
        assert _calls(cloud) == {"key-one": 1}

    @pytest.mark.parametrize("hours", [-30, 30])
    def test_the_server_s_day_decides_not_ours(self, make, cloud, documents, server_time, hours):
        """The server's day counts: a wrong clock costs a read per chart, and no call."""
        clock = HandClock()
        server_time.set(clock.now() + timedelta(hours=hours))
        provider = make(account("first", key="key-one", daily_limit=2), clock=clock)
        results = [at_once([partial(provider.chart, chart_request())])[0] for _ in range(4)]
        assert [isinstance(result, ChartApiLimitExceeded) for result in results] == [False] * 2 + [True] * 2
        assert (_calls(cloud), used(documents, "first")) == ({"key-one": 2}, 2)
