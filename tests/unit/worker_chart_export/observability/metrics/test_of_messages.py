"""Metrics of messages and of their stream."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from google.api_core import exceptions as google_errors

from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.handling.disposition import Ack, Defer, Nack, Reject
from daemon.lifecycle.drain import Drain
from daemon.lifecycle.liveness import Liveness
from daemon.lifecycle.stoppable_wait import StoppableWait, StopRequested
from daemon.subscription import supervisor
from daemon.subscription.callback import Delivery, Settlement
from daemon.subscription.supervisor import Quiet, StreamSupervisor
from tests.support.metric_counts import value
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.timing import Backoff

REJECT = Reject(reason="run_id_invalid", detail="runId: expected something else")


def _message(attempt=None):
    def nothing(*_given):
        """Return an ack disposition."""

    return SimpleNamespace(
        message_id="m1",
        data=b"{}",
        attributes={},
        publish_time=None,
        delivery_attempt=attempt,
        ack=nothing,
        nack=nothing,
        drop=nothing,
        modify_ack_deadline=nothing,
    )


class TestMessages:
    """Messages are counted when they are settled."""

    @pytest.mark.parametrize(
        ("disposition", "series"),
        [
            (Ack(reason="succeeded"), "ack,succeeded"),
            (Nack(reason="shutdown"), "nack,shutdown"),
            (Defer(delay_seconds=3, reason="pending"), "defer,pending"),
        ],
    )
    def test_each_disposition_by_its_reason(self, disposition, series, grown):
        """Each message is counted once by disposition and reason."""
        Settlement(None).settle(_message(), disposition)
        assert grown() == {f"messages_settled_total{{{series}}}": 1}

    @pytest.mark.parametrize(("attempt", "disposition"), [(None, "ack"), (3, "nack")])
    def test_a_rejection_is_counted_by_its_reason(self, attempt, disposition, grown):
        """A rejection is counted by its reason, whatever its disposition."""
        Settlement(None).settle(_message(attempt), REJECT)
        assert grown() == {
            f"messages_settled_total{{{disposition},rejected}}": 1,
            "messages_rejected_total{run_id_invalid}": 1,
        }

    def test_a_rejection_that_comes_back_is_not_counted(self, grown):
        """A rejection that comes back, because the quarantine topic is unavailable, is not counted yet."""

        def publish(**_message):
            raise google_errors.ServiceUnavailable("down")

        Settlement(SimpleNamespace(publish=publish)).settle(_message(), REJECT)
        assert grown() == {
            "messages_settled_total{defer,quarantine_unavailable}": 1,
            "backend_calls_total{pubsub,unavailable}": 1,
        }

    @pytest.mark.parametrize(
        ("error", "series"),
        [(None, "answered"), ("InvalidArgument", "answered"), ("PermissionDenied", "refused")],
    )
    def test_a_call_of_the_quarantine_topic(self, error, series):
        """A call of the quarantine topic is counted by whether a person must act."""
        before = value("backend_calls_total", backend="pubsub", result=series)

        def publish(**_message):
            if error is not None:
                raise getattr(google_errors, error)("so")

        Settlement(SimpleNamespace(publish=publish)).settle(_message(), REJECT)
        assert value("backend_calls_total", backend="pubsub", result=series) == before + 1

    def test_a_message_that_is_left_to_its_deadline(self, grown):
        """A message that fails to settle is counted as left to its deadline."""

        def fail(*_given):
            raise RuntimeError("mistake")

        handler, settlement = SimpleNamespace(handle=lambda _m: None), SimpleNamespace(settle=fail)
        Delivery(handler=handler, settlement=settlement, drain=Drain())(_message())
        assert grown() == {"messages_received_total{}": 1, "messages_settled_total{drop,internal_error}": 1}


class _Opened:
    """A stream without messages that is open until cancelled, or over from the start."""

    def __init__(self, *, has_ended):
        self.has_ended = has_ended

    def on_end(self, _callback):
        """Do nothing."""

    def end_error(self):
        """Return an error after which the stream may be opened again."""
        return BackendUnavailable("pubsub", "it ended")

    def renew_if_blocked(self):
        """Do nothing: no message is deferred."""

    def cancel(self):
        """End at once."""
        self.has_ended = True


@pytest.mark.parametrize(("has_ended", "reason"), [(True, "ended"), (False, "idle")])
def test_streams_are_counted_by_reason(has_ended, reason, grown, monkeypatch):
    """Opened streams are counted by reason: the first one, and one after an error."""
    no_delay = Backoff(first_seconds=0.0, max_seconds=0.0)
    monkeypatch.setattr(supervisor, "REOPEN_BACKOFF", no_delay)
    waiter, streams = StoppableWait(), [_Opened(has_ended=has_ended), _Opened(has_ended=False)]
    breaker = CircuitBreaker(probes={})
    watch = StreamSupervisor(
        open_stream=lambda: streams.pop(0),
        on_open=lambda opened_for: opened_for == "start" or waiter.request_stop("seen"),
        waiter=waiter,
        quiet=Quiet(drain=Drain(), breaker=breaker),
        breaker=breaker,
        liveness=Liveness(),
        idle_seconds=0.02,
    )
    with pytest.raises(StopRequested):
        watch.keep_open()
    assert grown() == {"streams_opened_total{start}": 1, f"streams_opened_total{{{reason}}}": 1}
