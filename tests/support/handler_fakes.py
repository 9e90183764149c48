"""A message handler with fakes: a ledger with scripted runs, a pipeline with scripted outcomes."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.handling.handler import MessageHandler
from daemon.handling.messages import IncomingMessage
from daemon.lifecycle.drain import Drain
from tests.support.fakes import (
    NOON,
    OHLCV_ID,
    RUN_ID,
    STEP_ID,
    HandClock,
    chart_step,
    ohlcv_step,
    run_of,
    scope_of,
    snapshot_of,
)
from worker_chart_export.execution.outcome import Outcome, OutcomeKind
from worker_chart_export.ledger.lease import LeaseTerms

if TYPE_CHECKING:
    from collections.abc import Collection

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.inputs.flow_run import FlowRun
    from worker_chart_export.ledger.lease import Lease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot

NAMES_A_STEP = {"runId": RUN_ID, "stepId": STEP_ID}
RUN_ONLY = {"runId": RUN_ID}
MANIFEST_URI = "gs://b/manifest.json"


class Ledger:
    """A ledger that returns runs in turn and repeats the last one; an error among them is raised.

    Attributes:
        leases: The leases that every read returns; None for a step without one.
        reads: The number of reads of a run.
        adopted: The steps that got a lease.
    """

    terms = LeaseTerms(clock_skew_seconds=5)

    def __init__(self, *runs: Any, **leases: Lease | None) -> None:
        self.runs = list(runs)
        self.leases = leases
        self.reads = 0
        self.adopted: list[str] = []

    def read(self, run_id: str, *, leases_of: Collection[str] = ()) -> RunSnapshot:
        """Return the next run."""
        assert run_id == RUN_ID
        run = self.runs[min(self.reads, len(self.runs) - 1)]
        self.reads += 1
        if isinstance(run, Exception):
            raise run
        return snapshot_of(run, **{name: self.leases.get(name) for name in leases_of})

    def adopt(self, run_id: str, step_id: str, *, now: object) -> None:
        """Note the step."""
        assert (run_id, now) == (RUN_ID, NOON)
        self.adopted.append(step_id)


class Pipeline:
    """A pipeline that ends its steps with scripted outcomes, in turn.

    Attributes:
        worked: The steps, in order.
        under: The message ids of these steps.
        snapshots: The reads of these steps.
        stored: The outcome of a step without a lease, from its manifest.
    """

    def __init__(self, *outcomes: Any, stored: Outcome | None = None) -> None:
        self.stored = stored
        self.outcomes = list(outcomes) or [OutcomeKind.SUCCEEDED]
        self.worked: list[str] = []
        self.under: list[str] = []
        self.snapshots: list[RunSnapshot] = []

    def new_scope(self) -> CancelScope:
        """Return a scope of half a minute."""
        return scope_of()

    def finish_unleased(
        self, snapshot: RunSnapshot, step_id: str, *, scope: CancelScope, message_id: str
    ) -> Outcome | None:
        """Find no manifest, or return the outcome that is scripted for it."""
        assert snapshot.leases[step_id] is None
        assert message_id
        scope.check()
        return self.stored

    def run(
        self, run_id: str, step_id: str, *, scope: CancelScope, message_id: str, snapshot: RunSnapshot
    ) -> Outcome:
        """Return the next outcome."""
        assert run_id == RUN_ID
        outcome = self.outcomes[min(len(self.worked), len(self.outcomes) - 1)]
        self.worked.append(step_id)
        self.under.append(message_id)
        self.snapshots.append(snapshot)
        if callable(outcome) and not isinstance(outcome, OutcomeKind):
            outcome = outcome(scope)
        if isinstance(outcome, BaseException):
            raise outcome
        made: Outcome = outcome if isinstance(outcome, Outcome) else Outcome(kind=outcome, reason="r")
        return made


def message(
    body: Any = None, *, age: float = 0.0, attributes: dict[str, str] | None = None
) -> IncomingMessage:
    """Return a delivery `m1`, by default of a message with the step, published `age` seconds before noon."""
    return IncomingMessage(
        message_id="m1",
        data=body if isinstance(body, bytes) else json.dumps(body or NAMES_A_STEP).encode(),
        attributes=attributes or {},
        publish_time=NOON - timedelta(seconds=age),
        delivery_attempt=None,
    )


def handler(
    ledger: Any,
    pipeline: Any = None,
    *,
    drain: Drain | None = None,
    breaker: Any = None,
    clock: HandClock | None = None,
    grace: float = 600.0,
) -> MessageHandler:
    """Return a handler at noon, by default with a circuit breaker that never opens."""
    return MessageHandler(
        ledger=ledger,
        pipeline=pipeline or Pipeline(),
        breaker=breaker or CircuitBreaker(probes={}),
        drain=drain or Drain(),
        clock=clock or HandClock(),
        step_timeout_seconds=300.0,
        not_ready_grace_seconds=grace,
    )


def one_step(**step: Any) -> FlowRun:
    """Return a run with its candles and the one step that messages name."""
    return run_of({OHLCV_ID: ohlcv_step(), STEP_ID: chart_step(**step)})


def free_steps(**statuses: str) -> FlowRun:
    """Return a run of chart steps without dependencies, with these names and statuses."""
    return run_of({name: chart_step(dependsOn=[], status=status) for name, status in statuses.items()})
