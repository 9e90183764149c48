"""The ledger of one worker process on a real client, and the run that it works on."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localcloud import Fault
from tests.support.fakes import scope_of
from tests.support.ledger.samples import ERROR, MANIFEST
from worker_chart_export.ledger.heartbeats import Heartbeats
from worker_chart_export.ledger.lease import LEASES, LeaseTerms
from worker_chart_export.ledger.step_ledger import Claim, StepLedger
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud import firestore

    from localcloud import LocalCloud
    from worker_chart_export.errors import StepError
    from worker_chart_export.ledger.decisions import ClaimResult, FinalizeResult
    from worker_chart_export.timing import Clock

STEPS = [f"s{number}" for number in range(8)]
TERMS = LeaseTerms(lease_seconds=60, clock_skew_seconds=1, max_attempts=5)


class LedgerProcess:
    """A ledger whose heartbeats beat only when the test calls them.

    Args:
        client: A Firestore client.
        terms: What its leases go by.
        clock: Its clock.
    """

    def __init__(
        self, client: firestore.Client, *, terms: LeaseTerms = TERMS, clock: Clock | None = None
    ) -> None:
        self.client = client
        clock = clock or SystemClock()
        self.heartbeats = Heartbeats(client=client, terms=terms, clock=clock)
        self.ledger = StepLedger(client=client, clock=clock, terms=terms, heartbeats=self.heartbeats)

    def try_claim(self, run_id: str, step_id: str) -> Claim | ClaimResult:
        """Claim as the handler does, with a read of the run and its lease."""
        snapshot = self.ledger.read(run_id, leases_of=[step_id])
        return self.ledger.claim(run_id, step_id, message_id="m", snapshot=snapshot)

    def claim(self, run_id: str, step_id: str) -> Claim:
        """Claim a step and return the claim."""
        claim = self.try_claim(run_id, step_id)
        assert isinstance(claim, Claim), claim.reason
        return claim

    def succeed(self, claim: Claim) -> FinalizeResult:
        """Finalize as SUCCEEDED."""
        return self.ledger.finalize(claim, manifest_uri=MANIFEST, scope=scope_of())

    def fail(self, claim: Claim, error: StepError = ERROR) -> FinalizeResult:
        """Finalize as FAILED."""
        return self.ledger.finalize(claim, error=error, scope=scope_of())


class StoredRun:
    """A run in Firestore, for a test to read and change."""

    def __init__(self, client: firestore.Client, run_id: str) -> None:
        self.run_id = run_id
        self.reference = client.document(f"flow_runs/{run_id}")

    def step(self, step_id: str) -> dict[str, Any]:
        """Return the step as it is now."""
        document = self.reference.get().to_dict()
        assert document is not None
        step: dict[str, Any] = document["steps"][step_id]
        return step

    def update_time(self) -> Any:
        """Return when the run was last changed."""
        return self.reference.get().update_time

    def lease_reference(self, step_id: str) -> firestore.DocumentReference:
        """Return the reference of a step's lease."""
        return self.reference.collection(LEASES).document(step_id)

    def lease(self, step_id: str) -> dict[str, Any] | None:
        """Return the lease as it is now."""
        return self.lease_reference(step_id).get().to_dict()

    def let_lease_end(self, step_id: str) -> None:
        """Make the lease expire, as if its worker was frozen."""
        self.lease_reference(step_id).update({"expiresAt": datetime(2020, 1, 1, tzinfo=UTC)})

    def set_status(self, step_id: str, status: str) -> None:
        """Change the status of a step, as the orchestrator does."""
        self.reference.update({f"steps.`{step_id}`.status": status})


class Gate:
    """Hold the next commit, or call of another method, until `open` is set. It sets `reached`."""

    def __init__(self, cloud: LocalCloud, *, method: str = "Commit") -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        cloud.firestore.faults.add(Fault(method=method, before=self._hold, times=1))

    def _hold(self, _request: object) -> None:
        self.reached.set()
        assert self.open.wait(10)


def in_thread(call: Callable[[], Any]) -> Future[Any]:
    """Call a function in a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def until(holds: Callable[[], bool]) -> None:
    """Return once the condition holds, within ten seconds."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.002)
