"""Heartbeats: one thread renews every lease of this process, and finds those that were lost.

Each heartbeat reads the leases and the statuses of their steps and runs. It renews the leases that are still
ours in one `BatchWrite`, in which each write succeeds or fails alone. It never writes to a run.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
from google.cloud.firestore_v1.bulk_batch import BulkWriteBatch
from google.cloud.firestore_v1.field_path import FieldPath

from worker_chart_export.backends.errors import backend_errors
from worker_chart_export.backends.firestore import read_documents
from worker_chart_export.errors import BackendRefused, BackendUnavailable, LeaseLost
from worker_chart_export.inputs.flow_run import FINAL_RUN_STATUSES, StepStatus
from worker_chart_export.ledger.decisions import FLOW_RUNS
from worker_chart_export.ledger.lease import BEATS_PER_LEASE, LEASES, StoredLease
from worker_chart_export.ledger.run_snapshot import lease_reference, stored_lease
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker_chart_export.backends.firestore import LazySnapshot
    from worker_chart_export.ledger.lease import HeldLease, Lease, LeaseTerms
    from worker_chart_export.timing import Clock

#: Results of a write in a batch (google.rpc.Code): the lease was changed or deleted since it was read.
LOST_CODES = frozenset(
    code.value[0] for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
)
#: After a heartbeat that failed the next one comes sooner, so that one lost answer does not lose a lease.
FAILED_BEAT_SHARE = 0.25
MAX_CALL_SECONDS = 10.0
#: How long a stop waits for a running heartbeat.
MAX_STOP_SECONDS = 0.5


class Heartbeats:
    """The leases that this process holds, and the thread that renews them. Shared by all threads.

    Args:
        client: A Firestore client.
        terms: How often to renew leases, and how long a renewed lease is trusted.
        clock: Its monotonic clock is used.
    """

    def __init__(self, *, client: Any, terms: LeaseTerms, clock: Clock) -> None:
        self._client = client
        self._terms = terms
        self._clock = clock
        self._lock = threading.Lock()
        self._held: set[HeldLease] = set()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._call_seconds = min(MAX_CALL_SECONDS, terms.lease_seconds / BEATS_PER_LEASE)

    def start(
        self,
        on_tick: Callable[[], None] = lambda: None,
        on_failure: Callable[[BackendUnavailable], None] = lambda _error: None,
        on_success: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the thread. Its log lines go where those of the caller go.

        Args:
            on_tick: Called before each heartbeat.
            on_failure: Called with the error when Firestore was unavailable.
            on_success: Called when Firestore answered.
        """
        self._thread = threading.Thread(
            target=copy_context().run,
            args=(self._run, on_tick, on_failure, on_success),
            name="heart-beats",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(MAX_STOP_SECONDS)

    def add(self, held: HeldLease) -> None:
        """Renew this lease from now on."""
        with self._lock:
            self._held.add(held)

    def discard(self, held: HeldLease) -> None:
        """Renew this lease no more."""
        with self._lock:
            self._held.discard(held)

    def held(self) -> list[HeldLease]:
        """Return the leases that are being renewed."""
        with self._lock:
            return list(self._held)

    def renewal_age_seconds(self) -> float:
        """Return how long ago the oldest of the leases was claimed or renewed; 0 without leases."""
        renewed = [held.trusted_until - self._terms.trusted_seconds for held in self.held()]
        return max(0.0, self._clock.monotonic() - min(renewed)) if renewed else 0.0

    def _run(
        self,
        on_tick: Callable[[], None],
        on_failure: Callable[[BackendUnavailable], None],
        on_success: Callable[[], None],
    ) -> None:
        pause = self._terms.renew_every_seconds
        while not self._ended.wait(pause):
            on_tick()
            pause = self._terms.renew_every_seconds
            try:
                if self.beat():
                    on_success()
            except (BackendUnavailable, BackendRefused) as error:
                log.warning(Event.BACKEND_UNAVAILABLE, f"A heartbeat failed: {error}", backend="firestore")
                pause *= FAILED_BEAT_SHARE
                self._fence_overdue()
                if isinstance(error, BackendUnavailable):
                    on_failure(error)
            except Exception as error:  # noqa: BLE001 - without heartbeats every step of the process is lost
                log.error(Event.INTERNAL_ERROR, f"A heartbeat failed: {error!r:.300}", exc_info=error)
                pause *= FAILED_BEAT_SHARE
                self._fence_overdue()

    def _fence_overdue(self) -> None:
        """Stop the work whose lease was not renewed in time, even while it hangs in a call."""
        for held in self.held():
            with suppress(LeaseLost):
                held.check()

    def beat(self) -> bool:
        """Renew all leases once. Skip a lease while a commit is changing it.

        Returns:
            Whether there was a lease to renew, so that Firestore was called.

        Raises:
            BackendUnavailable: Firestore is unavailable. No lease counts as lost for that.
            BackendRefused: Firestore refuses.
        """
        self._give_up_hanging()
        with ExitStack() as locks:
            mine = [held for held in self.held() if not held.is_lost and held.lock.acquire(blocking=False)]
            for held in mine:
                locks.callback(held.lock.release)
            if not mine:
                return False
            asked_at = self._clock.monotonic()
            found = self._read(mine)
            ours = []
            for held in mine:
                stored, run = _found_for(held, found)
                why = why_lost(held.step_id, held.lease, stored, run)
                if why is not None or stored is None:
                    held.lose(why or "it is gone")
                    continue
                # Its update time differs after a write of ours whose answer was lost.
                held.stored = replace(stored, lease=held.lease)
                ours.append(held)
            if ours:
                self._renew(ours, found, trusted_until=asked_at + self._terms.trusted_seconds)
            return True

    def _give_up_hanging(self) -> None:
        """Lose the leases of work that hangs, so that another worker can take the steps over."""
        max_seconds = self._terms.max_work_seconds
        for held in self.held():
            if held.age_seconds() > max_seconds:
                held.lose(f"the work has lasted longer than {max_seconds:g} s")

    def _read(self, mine: Sequence[HeldLease]) -> Mapping[str, LazySnapshot]:
        """Read who has the leases, and the statuses of their runs and steps, by document path."""
        run_ids = {held.run_id for held in mine}
        references = [lease_reference(self._client, held.run_id, held.step_id) for held in mine]
        references += [self._client.collection(FLOW_RUNS).document(run_id) for run_id in run_ids]
        paths = {FieldPath("steps", held.step_id, "status").to_api_repr() for held in mine}
        snapshots = read_documents(
            self._client,
            references,
            field_paths=["status", "token", "releasedBy", *paths],
            retry=None,
            timeout_seconds=self._call_seconds,
        )
        return dict(zip((reference.path for reference in references), snapshots, strict=True))

    def _renew(
        self, ours: Sequence[HeldLease], found: Mapping[str, LazySnapshot], *, trusted_until: float
    ) -> None:
        batch = BulkWriteBatch(self._client)
        renewed = []
        for held in ours:
            reference = lease_reference(self._client, held.run_id, held.step_id)
            snapshot = found[reference.path]
            expires_at = snapshot.read_time + timedelta(seconds=self._terms.lease_seconds)
            option = self._client.write_option(last_update_time=snapshot.update_time)
            batch.update(reference, {"expiresAt": expires_at}, option=option)
            renewed.append(replace(held.lease, expires_at=expires_at))
        with backend_errors("firestore"):
            response = batch.commit(retry=None, timeout=self._call_seconds)
        results = zip(ours, renewed, response.status, response.write_results, strict=True)
        for held, lease, status, written in results:
            if status.code == grpc.StatusCode.OK.value[0]:
                held.stored = StoredLease(lease=lease, update_time=written.update_time)
                held.trusted_until = trusted_until
            elif status.code in LOST_CODES:
                held.lose("another worker has just taken it, or an operator has released it")
            else:
                log.warning(
                    Event.BACKEND_UNAVAILABLE,
                    f"A heartbeat failed: {status.message}",
                    backend="firestore",
                    runId=held.run_id,
                    stepId=held.step_id,
                    flowKey=held.flow_key,
                )


def _found_for(
    held: HeldLease, found: Mapping[str, LazySnapshot]
) -> tuple[StoredLease | None, Mapping[str, Any] | None]:
    """Return the lease and the fields of the run as they were read."""
    run_path = f"{FLOW_RUNS}/{held.run_id}"
    lease = found[f"{run_path}/{LEASES}/{held.step_id}"]
    return stored_lease(lease.fields, lease.update_time), found[run_path].fields


def why_lost(
    step_id: str, own: Lease, stored: StoredLease | None, run: Mapping[str, Any] | None
) -> str | None:
    """Return why this process has lost its lease, or None when the work may continue. Pure.

    Args:
        step_id: The step.
        own: The lease as this process holds it.
        stored: The lease as it is in Firestore, or None when it is gone.
        run: The fields of the run, or None when it is gone. The statuses of run and step are enough.
    """
    if stored is not None and stored.lease.released_by and not stored.lease.token:
        return f"{stored.lease.released_by} has released it"
    if stored is None or stored.lease.token != own.token:
        return "another worker has taken it"
    if run is None:
        return "the run is gone"
    steps = run.get("steps")
    step = steps.get(step_id) if isinstance(steps, Mapping) else None
    status = step.get("status") if isinstance(step, Mapping) else None
    if status != StepStatus.RUNNING:
        return f"the step is no longer RUNNING but {status or 'gone'}"
    of_run = run.get("status")
    if isinstance(of_run, str) and of_run in FINAL_RUN_STATUSES:
        return f"the run is {of_run}"
    return None
