"""The attempts for one chart: their number, the pauses between them, and what ends them."""

from __future__ import annotations

import threading
import time

import pytest

from localcloud import Fault
from localcloud.chart_img.answers import ANSWERS
from tests.support.charts.chart_img_samples import KEY, account, used
from tests.support.fakes import chart_request, scope_of
from worker_chart_export.charts.chart_img import attempts as attempts_module
from worker_chart_export.charts.chart_img.answers import Answer, Meaning
from worker_chart_export.charts.chart_img.attempts import pause_seconds
from worker_chart_export.errors import ChartApiFailed, ErrorCode, Interrupted, OutOfReach, StepTimedOut

MAX_SECONDS = 2.0


def _answer(cloud, name, **fields):
    cloud.chart_img.faults.add(Fault(answer=name, **fields))


def _calls(cloud):
    return cloud.chart_img.calls["advanced-chart"]


class TestFinal:
    """Responses after which another attempt would fail too."""

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            ("bad_request", "400: Invalid JSON"),
            ("not_found", "404: Not Found"),
            ("session_disconnected", "409: Session Disconnected"),
            ("invalid_fields", "422: interval: Invalid value"),
            ("invalid_symbol", "422: Invalid Symbol"),
            ("invalid_interval", "422: Invalid Interval"),
        ],
    )
    def test_it_is_called_once_and_on_one_account(self, make, cloud, answer, text):
        """A final response ends the request after one call, with the API's own message."""
        _answer(cloud, answer)
        with pytest.raises(ChartApiFailed, match=rf"^Chart-IMG answered {text}") as caught:
            make(account(), account("acc-2", key="other")).chart(chart_request())
        assert _calls(cloud) == 1
        assert caught.value.details["httpStatus"] == int(text[:3])
        assert caught.value.details["apiMessage"] == text[5:]

    def test_a_422_names_its_parameters(self, provider, cloud):
        """A 422 has its parameters in the error's details, so that the template can be corrected."""
        _answer(cloud, "invalid_fields")
        with pytest.raises(ChartApiFailed) as caught:
            provider.chart(chart_request())
        assert caught.value.details["params"] == ["interval"]


@pytest.mark.usefixtures("_no_pauses")
class TestTransient:
    """Responses after which another attempt may succeed."""

    @pytest.mark.parametrize(
        "answer",
        ["server_error", "bad_gateway", "unavailable", "timeout", "gateway_timeout", "truncated", "empty"]
        + ["too_early"],
    )
    def test_it_is_tried_six_times_each_of_them_counted(self, provider, cloud, documents, answer):
        """A transient failure is tried six times, each one counted, then the request fails."""
        _answer(cloud, answer)
        with pytest.raises(ChartApiFailed, match=r"^Chart-IMG answered"):
            provider.chart(chart_request())
        assert (_calls(cloud), used(documents)) == (6, 6)

    @pytest.mark.parametrize("answer", ["wrong_size", "html", "jpeg"])
    def test_a_whole_answer_that_is_no_chart_is_bought_twice_at_most(
        self, provider, cloud, documents, answer
    ):
        """A complete response without a chart is requested twice at most."""
        _answer(cloud, answer)
        with pytest.raises(ChartApiFailed, match=r"^Chart-IMG answered 200"):
            provider.chart(chart_request())
        assert (_calls(cloud), used(documents)) == (2, 2)

    @pytest.mark.parametrize("answer", ["wrong_size", "html", "jpeg"])
    def test_a_single_wrong_answer_is_repeated(self, provider, cloud, answer):
        """A single wrong response is repeated, also among other transient ones."""
        _answer(cloud, answer, times=1)
        _answer(cloud, "truncated", times=3)
        assert provider.chart(chart_request()).provider == "chart-img"
        assert _calls(cloud) == 5

    @pytest.mark.parametrize("answer", ["server_error", "bad_gateway", "truncated"])
    def test_the_sixth_attempt_may_succeed(self, provider, cloud, answer):
        """A request that succeeds at the sixth attempt has no error."""
        _answer(cloud, answer, times=5)
        assert provider.chart(chart_request()).png.startswith(b"\x89PNG")

    def test_a_picture_with_a_line_end_after_it_costs_one_call(self, provider, cloud, documents):
        """A picture with a byte after its end costs one call, and the byte is cut off."""
        _answer(cloud, "line_end_after_picture")
        assert provider.chart(chart_request()).png == ANSWERS["line_end_after_picture"].body[:-1]
        assert (_calls(cloud), used(documents)) == (1, 1)

    def test_a_reset_connection_is_transient(self, provider, cloud, documents):
        """A reset connection is transient, and the error names the network error."""
        cloud.chart_img.faults.add(Fault(reset=True))
        with pytest.raises(ChartApiFailed, match=r"^Chart-IMG did not answer: ProtocolError"):
            provider.chart(chart_request())
        assert (_calls(cloud), used(documents)) == (6, 6)

    def test_a_refused_connection_is_transient_and_counted_once(self, provider, cloud, documents):
        """A refused connection is transient and keeps its count, because nothing was sent."""
        cloud.chart_img.stop()
        with pytest.raises(ChartApiFailed, match=r"NewConnectionError"):
            provider.chart(chart_request())
        assert used(documents) == 1
        cloud.chart_img.start()
        provider.chart(chart_request())
        assert used(documents) == 2

    def test_six_attempts_are_all_there_are_over_all_accounts(self, make, cloud):
        """A chart has six attempts over all accounts; a skipped account uses none."""
        _answer(cloud, "limit_exceeded", match=KEY, skip=3, times=1)
        _answer(cloud, "server_error")
        with pytest.raises(ChartApiFailed):
            make(account(), account("acc-2", key="other")).chart(chart_request())
        assert cloud.chart_img.calls_per_key.as_dict() == {KEY: 4, "other": 3}

    def test_a_rate_limit_is_no_attempt_and_counted_once(self, provider, cloud, documents):
        """Rate 429s use no attempt and one count: ten of them and five failures leave the sixth."""
        _answer(cloud, "too_many_requests", times=10)
        _answer(cloud, "server_error", times=5)
        assert provider.chart(chart_request()).meta == {"accountId": "acc-1"}
        assert (_calls(cloud), used(documents)) == (16, 6)


class TestTime:
    """The step's scope limits the whole request."""

    def test_a_rate_limit_waits_about_a_second(self, make, cloud, documents):
        """After a rate 429 the same account is called again after about a second, with the same count."""
        _answer(cloud, "too_many_requests", times=1)
        started = time.monotonic()
        image = make(account(), account("acc-2", key="other")).chart(chart_request())
        assert image.meta == {"accountId": "acc-1"}
        assert 0.8 <= time.monotonic() - started < 5
        assert (_calls(cloud), used(documents)) == (2, 1)

    def test_endless_rate_limits_end_with_the_step_s_time(self, provider, cloud, documents):
        """Endless rate 429s end as a timeout of the step, with one counted call."""
        _answer(cloud, "too_many_requests")
        with pytest.raises(StepTimedOut) as caught:
            provider.chart(chart_request(scope=scope_of(0.3)))
        assert used(documents) == 1
        assert caught.value.details == {
            "lastStatus": 429,
            "lastMessage": "Too Many Requests",
            "accountId": "acc-1",
        }

    def test_transient_failures_end_with_the_step_s_time(self, provider, cloud):
        """Transient failures end with the step's time, before their six attempts."""
        _answer(cloud, "server_error")
        started = time.monotonic()
        with pytest.raises(
            StepTimedOut, match=r"last answer of Chart-IMG: 500 Something Went Wrong$"
        ) as caught:
            provider.chart(chart_request(scope=scope_of(0.4)))
        assert time.monotonic() - started < MAX_SECONDS
        assert caught.value.details["lastStatus"] == 500

    def test_a_timeout_without_a_failure_mentions_none(self, provider, cloud):
        """A timeout before the first response mentions no failure."""
        cloud.chart_img.faults.add(Fault(delay_seconds=20))
        with pytest.raises(StepTimedOut) as caught:
            provider.chart(chart_request(scope=scope_of(0.3)))
        assert caught.value.details == {}

    def test_a_silent_server_is_left_at_the_deadline(self, provider, cloud):
        """The call to a silent server ends with the step's time."""
        cloud.chart_img.faults.add(Fault(delay_seconds=20))
        started = time.monotonic()
        with pytest.raises(StepTimedOut):
            provider.chart(chart_request(scope=scope_of(0.5)))
        assert time.monotonic() - started < MAX_SECONDS

    @pytest.mark.usefixtures("_no_pauses")
    def test_a_server_that_is_too_slow_is_called_again(self, provider, cloud, monkeypatch):
        """A read timeout is transient, and the server is called again."""
        monkeypatch.setattr("worker_chart_export.charts.chart_img.client.READ_TIMEOUT_SECONDS", 0.2)
        cloud.chart_img.faults.add(Fault(delay_seconds=2, times=1))
        assert provider.chart(chart_request()).provider == "chart-img"
        assert _calls(cloud) == 2

    @pytest.mark.parametrize(
        "where",
        [
            {"answer": "server_error"},  # the pause between attempts
            {"answer": "too_many_requests"},  # the pause after being too fast
            {"delay_seconds": 20},  # the call itself
        ],
        ids=["attempts", "too fast", "call"],
    )
    def test_a_stop_ends_a_wait(self, provider, cloud, monkeypatch, where):
        """A stop ends a wait at once, and no call follows."""
        monkeypatch.setattr(attempts_module, "pause_seconds", lambda _answer, _failures: 60.0)
        cloud.chart_img.faults.add(Fault(**where))
        scope, stopped = scope_of(100), []

        def stop():
            assert cloud.chart_img.calls.wait_for("advanced-chart", 1, timeout_seconds=10)
            stopped.append(time.monotonic())
            scope.stop(Interrupted("stop"))

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(Interrupted):
            provider.chart(chart_request(scope=scope))
        stopper.join()
        assert time.monotonic() - stopped[0] < MAX_SECONDS
        assert _calls(cloud) == 1


class TestOutOfReach:
    """The step can't get enough charts any more."""

    SCOPE_ENDS = OutOfReach.after(ErrorCode.CHART_API_FAILED, "ctpl_b", min_images=3)

    def _chart_while_it_ends(self, provider, cloud):
        """Ask for a chart. When its first call has arrived, stop the scope, but not that of the call."""
        scope = scope_of(100)
        request = chart_request(scope=scope, call_scope=scope_of(100))

        def stop():
            assert cloud.chart_img.calls.wait_for("advanced-chart", 1, timeout_seconds=10)
            scope.stop(self.SCOPE_ENDS)

        stopper = threading.Thread(target=stop)
        stopper.start()
        try:
            return provider.chart(request)
        finally:
            stopper.join()

    def test_no_call_is_begun_or_counted(self, provider, cloud, documents):
        """A chart that is not called yet makes no call and counts none."""
        scope = scope_of(100)
        scope.stop(self.SCOPE_ENDS)
        with pytest.raises(OutOfReach):
            provider.chart(chart_request(scope=scope, call_scope=scope_of()))
        assert (_calls(cloud), used(documents)) == (0, 0)

    def test_a_call_in_progress_is_finished(self, provider, cloud):
        """A call in progress is paid: its chart is returned."""
        cloud.chart_img.faults.add(Fault(delay_seconds=0.5))
        assert self._chart_while_it_ends(provider, cloud).png.startswith(b"\x89PNG")
        assert _calls(cloud) == 1

    def test_a_failed_call_is_not_repeated(self, provider, cloud, monkeypatch):
        """A call that fails is not repeated: the pause ends at once, with its answer as the failure."""
        monkeypatch.setattr(attempts_module, "pause_seconds", lambda _answer, _failures: 60.0)
        _answer(cloud, "server_error")
        started = time.monotonic()
        with pytest.raises(ChartApiFailed, match=r"^Chart-IMG answered 500: Something Went Wrong$"):
            self._chart_while_it_ends(provider, cloud)
        assert time.monotonic() - started < MAX_SECONDS
        assert _calls(cloud) == 1

    def test_a_call_that_came_too_fast_was_no_attempt(self, provider, cloud, monkeypatch):
        """After a rate 429 the chart counts as not tried."""
        monkeypatch.setattr(attempts_module, "pause_seconds", lambda _answer, _failures: 60.0)
        _answer(cloud, "too_many_requests")
        with pytest.raises(OutOfReach):
            self._chart_while_it_ends(provider, cloud)
        assert _calls(cloud) == 1


class TestPauses:
    """The pauses between attempts."""

    @pytest.mark.parametrize("failed", [1, 2, 3, 4, 5])
    def test_they_are_between_half_a_second_and_eight_and_grow(self, failed):
        """Pauses are between 0.5 and 8 seconds, grow, and are random to spread many workers."""
        transient = Answer(meaning=Meaning.TRANSIENT, status=500)
        pauses = [pause_seconds(transient, failed) for _ in range(200)]
        assert min(pauses) >= 0.5
        assert max(pauses) <= min(8.0, 2.0 ** (failed - 1))
        assert len(set(pauses)) > 100

    def test_after_being_too_fast_about_a_second(self):
        """The pause after a rate 429 is about a second, at every attempt."""
        answer = Answer(meaning=Meaning.TOO_FAST, status=429)
        pauses = [pause_seconds(answer, 3) for _ in range(200)]
        assert 0.8 <= min(pauses) <= max(pauses) <= 1.5

    def test_the_pause_is_at_least_the_retry_after(self):
        """The pause is at least the seconds of `Retry-After`."""
        transient = Answer(meaning=Meaning.TRANSIENT, status=503, retry_after_seconds=20.0)
        assert pause_seconds(transient, 1) == 20.0
        too_fast = Answer(meaning=Meaning.TOO_FAST, status=429, retry_after_seconds=3.0)
        assert pause_seconds(too_fast, 0) == 3.0
