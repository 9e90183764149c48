"""Heart-beats: one thread that renews every lease of this process, and learns of those that were taken.

Each beat reads its leases and, of their runs, only the statuses that matter; what is still ours is renewed in
one `BatchWrite`, in which each write succeeds or fails alone. The run itself is never written.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from google.cloud.firestore_v1.bulk_batch import BulkWriteBatch
from google.cloud.firestore_v1.field_path import FieldPath

from worker_chart_export.backends.errors import backend_errors
from worker_chart_export.backends.firestore import document_of
from worker_chart_export.errors import BackendRefused, BackendUnavailable, LeaseLost
from worker_chart_export.inputs.flow_run import FINAL_RUN_STATUSES, StepStatus
from worker_chart_export.ledger.decisions import FLOW_RUNS
from worker_chart_export.ledger.lease import LEASES, StoredLease
from worker_chart_export.ledger.run_snapshot import lease_reference, stored_lease
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker_chart_export.ledger.lease import HeldLease, Lease, LeaseTerms
    from worker_chart_export.timing import Clock

#: Of a write in a batch: google.rpc.Code OK; NOT_FOUND and FAILED_PRECONDITION.
OK = 0
LOST_CODES = frozenset({5, 9})
#: After a beat that failed the next comes sooner, so that one lost answer costs no lease.
FAILED_BEAT_SHARE = 0.25
MAX_CALL_SECONDS = 10.0
#: A beat under way as the process ends is not waited for any longer.
MAX_STOP_SECONDS = 0.5


class HeartBeats:
    """The leases this process holds, and the thread that renews them. Shared by all threads.

    Args:
        client: A Firestore client.
        terms: How often to beat, and for how long a beat is good.
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

    def start(
        self,
        on_tick: Callable[[], None] = lambda: None,
        on_failure: Callable[[], None] = lambda: None,
        on_success: Callable[[], None] = lambda: None,
    ) -> None:
        """Beat from now on, in a thread of its own.

        Args:
            on_tick: Called each time it comes round.
            on_failure: Called when Firestore was away.
            on_success: Called when it answered.
        """
        self._thread = threading.Thread(
            target=self._run, args=(on_tick, on_failure, on_success), name="heart-beats", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(MAX_STOP_SECONDS)

    def add(self, held: HeldLease) -> None:
        """Renew this lease from now on."""
        with self._lock:
            self._held.add(held)

    def discard(self, held: HeldLease) -> None:
        """Renew it no more."""
        with self._lock:
            self._held.discard(held)

    def held(self) -> list[HeldLease]:
        """The leases that are renewed now."""
        with self._lock:
            return list(self._held)

    def renewal_age_seconds(self) -> float:
        """How long ago the oldest of the leases was taken or renewed; 0 without any."""
        renewed = [held.trusted_until - self._terms.trusted_seconds for held in self.held()]
        return max(0.0, self._clock.monotonic() - min(renewed)) if renewed else 0.0

    def _run(
        self, on_tick: Callable[[], None], on_failure: Callable[[], None], on_success: Callable[[], None]
    ) -> None:
        pause = self._terms.renew_every_seconds
        while not self._ended.wait(pause):
            on_tick()
            pause = self._terms.renew_every_seconds
            try:
                if self.beat():
                    on_success()
            except (BackendUnavailable, BackendRefused) as error:
                log.warning(Event.BACKEND_UNAVAILABLE, f"A heart-beat failed: {error}", backend="firestore")
                pause *= FAILED_BEAT_SHARE
                self._fence_overdue()
                if isinstance(error, BackendUnavailable):
                    on_failure()
            except Exception as error:  # noqa: BLE001 - without heart-beats every step of the process is lost
                log.error(Event.INTERNAL_ERROR, f"A heart-beat failed: {error!r:.300}", exc_info=error)
                pause *= FAILED_BEAT_SHARE
                self._fence_overdue()

    def _fence_overdue(self) -> None:
        """A lease that was not renewed in time ends its work, also where nobody asks: in a hanging call."""
        for held in self.held():
            with suppress(LeaseLost):
                held.check()

    def beat(self) -> bool:
        """Renew all leases once; one that a commit is just about to change is left to that.

        Returns:
            Whether there was anything to ask Firestore for.

        Raises:
            BackendUnavailable: Firestore is away; nothing is known to be lost for that.
            BackendRefused: Firestore refuses.
        """
        with ExitStack() as locks:
            mine = [held for held in self.held() if not held.is_lost and held.lock.acquire(blocking=False)]
            for held in mine:
                locks.callback(held.lock.release)
            if not mine:
                return False
            asked_at = self._clock.monotonic()
            found = self._read(mine)
            self._renew([held for held in mine if _is_ours(held, found)], found, asked_at)
            return True

    def _read(self, mine: Sequence[HeldLease]) -> Mapping[str, Any]:
        """The leases' tokens and the runs' and steps' statuses, by document path."""
        run_ids = {held.run_id for held in mine}
        references = [self._lease_reference(held) for held in mine]
        references += [self._client.collection(FLOW_RUNS).document(run_id) for run_id in run_ids]
        paths = {FieldPath("steps", held.step_id, "status").to_api_repr() for held in mine}
        with backend_errors("firestore"):
            snapshots = self._client.get_all(
                references, field_paths=["status", "token", *paths], retry=None, timeout=self._call_seconds()
            )
            return {snapshot.reference.path: snapshot for snapshot in snapshots}

    def _renew(self, ours: Sequence[HeldLease], found: Mapping[str, Any], asked_at: float) -> None:
        if not ours:
            return
        batch = BulkWriteBatch(self._client)
        renewed = []
        for held in ours:
            reference = self._lease_reference(held)
            snapshot = found[reference.path]
            lease = replace(
                held.lease, expires_at=snapshot.read_time + timedelta(seconds=self._terms.lease_seconds)
            )
            option = self._client.write_option(last_update_time=snapshot.update_time)
            batch.update(reference, {"expiresAt": lease.expires_at}, option=option)
            renewed.append(lease)
        with backend_errors("firestore"):
            response = batch.commit(retry=None, timeout=self._call_seconds())
        trusted_until = asked_at + self._terms.trusted_seconds
        for held, lease, status, result in zip(
            ours, renewed, response.status, response.write_results, strict=True
        ):
            _note(held, lease, status, result.update_time, trusted_until)

    def _lease_reference(self, held: HeldLease) -> Any:
        return lease_reference(self._client, held.run_id, held.step_id)

    def _call_seconds(self) -> float:
        return min(MAX_CALL_SECONDS, self._terms.renew_every_seconds)


def _is_ours(held: HeldLease, found: Mapping[str, Any]) -> bool:
    """Whether the work on it goes on; if not, its holder is told why."""
    why = _why_lost(held, found)
    if why is not None:
        held.lose(why)
    return why is None


def _why_lost(held: HeldLease, found: Mapping[str, Any]) -> str | None:
    run_path = f"{FLOW_RUNS}/{held.run_id}"
    stored = stored_lease(found[f"{run_path}/{LEASES}/{held.step_id}"])
    if stored is None or stored.lease.token != held.lease.token:
        return "another worker has taken it"
    document = document_of(found[run_path])
    if document is None:
        return "the run is gone"
    steps = document.get("steps")
    step = steps.get(held.step_id) if isinstance(steps, dict) else None
    status = step.get("status") if isinstance(step, dict) else None
    if status != StepStatus.RUNNING:
        return f"the step is no longer RUNNING but {status or 'gone'}"
    of_run = document.get("status")
    if isinstance(of_run, str) and of_run in FINAL_RUN_STATUSES:
        return f"the run is {of_run}"
    held.reread(replace(stored, lease=held.lease))
    return None


def _note(held: HeldLease, lease: Lease, status: Any, update_time: Any, trusted_until: float) -> None:
    """What became of one write of the batch."""
    if status.code == OK:
        held.renewed(StoredLease(lease=lease, update_time=update_time), trusted_until=trusted_until)
    elif status.code in LOST_CODES:
        held.lose("another worker has just taken it")
    else:
        log.warning(
            Event.BACKEND_UNAVAILABLE,
            f"A heart-beat failed: {status.message}",
            backend="firestore",
            runId=held.run_id,
            stepId=held.step_id,
        )
