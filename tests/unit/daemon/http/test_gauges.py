"""The gauges that are read when the metrics are requested."""

from __future__ import annotations

from types import SimpleNamespace

from daemon.handling.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from daemon.http.probes import register_gauges
from daemon.lifecycle.drain import Drain
from daemon.lifecycle.liveness import HealthReport
from tests.support.fakes import HandClock, scope_of
from tests.support.pipeline_bench import TERMS
from worker_chart_export.errors import BackendUnavailable
from worker_chart_export.ledger.heartbeats import Heartbeats
from worker_chart_export.ledger.lease import HeldLease
from worker_chart_export.observability import metrics


def _value(name, **labels):
    return metrics.REGISTRY.get_sample_value(f"chart_export_{name}", labels)


def _show(drain, heartbeats, readiness=lambda: HealthReport(parts={"stream": "ok"}, reason=None)):
    settings = SimpleNamespace(worker_concurrency=8, drain_seconds=25)
    register_gauges(settings=settings, drain=drain, heartbeats=heartbeats, readiness=readiness)


def _held(clock):
    stored = SimpleNamespace(lease=None)
    until = clock.monotonic() + TERMS.trusted_seconds
    return HeldLease(run_id="r", step_id="s", stored=stored, trusted_until=until, clock=clock)


def test_a_paused_intake():
    """The gauge of paused intake is 1 until the backend is available."""
    breaker = CircuitBreaker(probes={"storage": lambda: None}, probe_seconds=0.01)
    for _ in range(FAILURES_TO_OPEN):
        breaker.record_failure(BackendUnavailable("storage", "x"))
    assert _value("intake_paused", backend="storage") == 1
    with breaker:
        assert breaker.wait_until_closed() is None
    assert _value("intake_paused", backend="storage") == 0


def test_the_last_daemon_of_a_process_shows_itself():
    """The gauges show the last daemon of the process and no earlier one."""
    clock, beats = HandClock(), Heartbeats(client=None, terms=TERMS, clock=HandClock())
    drains = [Drain(), Drain(clock.monotonic)]
    for drain in drains:
        _show(drain, beats)
    with drains[1].running(scope_of()):
        clock.advance(4)
        with drains[1].running(scope_of()):
            clock.advance(3)
            assert (_value("steps_running"), _value("oldest_step_age_seconds")) == (2, 7)
    assert (_value("steps_running"), _value("oldest_step_age_seconds")) == (0, 0)
    assert _value("drain_seconds") == 0
    drains[1].start()
    clock.advance(2)
    assert (_value("drain_seconds"), _value("drain_limit_seconds"), _value("steps_capacity")) == (
        2,
        25,
        8,
    )


def test_the_lease_that_waited_longest_for_its_renewal():
    """The gauge shows the longest time since a lease's renewal, 0 without leases."""
    clock = HandClock()
    beats = Heartbeats(client=None, terms=TERMS, clock=clock)
    _show(Drain(), beats)
    assert (_value("leases_held"), _value("lease_renewal_age_seconds")) == (0, 0)
    for _ in range(2):
        beats.add(_held(clock))
        clock.advance(5)
    assert (_value("leases_held"), _value("lease_renewal_age_seconds")) == (2, 10)


def test_readiness_and_the_stream():
    """The gauges of readiness and stream equal /readyz."""
    found = SimpleNamespace(reason="draining", parts={"stream": "ok"})
    _show(Drain(), Heartbeats(client=None, terms=TERMS, clock=HandClock()), readiness=lambda: found)
    assert (_value("ready"), _value("stream_open")) == (0, 1)
    found.reason, found.parts = None, {"stream": "closed"}
    assert (_value("ready"), _value("stream_open")) == (1, 0)
