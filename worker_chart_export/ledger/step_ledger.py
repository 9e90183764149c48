"""The step ledger: read runs, and claim, finalize and release steps for this process."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from worker_chart_export.backends.firestore import create_document, read_document
from worker_chart_export.backends.firestore_client import probe
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.concurrency.single_flight import SingleFlight
from worker_chart_export.errors import BackendUnavailable, LeaseLost, StepError, WorkerError
from worker_chart_export.inputs.flow_run import CHART_EXPORT
from worker_chart_export.ledger.commit.group_commit import GIVE_UP_AFTER_SECONDS, GroupCommits
from worker_chart_export.ledger.decisions import FLOW_RUNS, FinalizeResult, Reason
from worker_chart_export.ledger.expired_leases import ExpiredLease, delete_lease, expired_leases
from worker_chart_export.ledger.finished_steps import FinishedSteps
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent
from worker_chart_export.ledger.lease import UNKNOWN_OWNER, HeldLease, LeaseOffer, unleased
from worker_chart_export.ledger.releases import Releases
from worker_chart_export.ledger.result_log import log_claim, log_finalize, operators_of
from worker_chart_export.ledger.run_snapshot import lease_reference, read_lease, read_run
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, bind, bound, log
from worker_chart_export.observability.observers import Stage, stage
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from worker_chart_export.inputs.flow_run import FlowRun, Step
    from worker_chart_export.ledger.commit.group_commit import RunCommits
    from worker_chart_export.ledger.commit.plan import Resolution
    from worker_chart_export.ledger.decisions import ClaimResult, ReleaseResult
    from worker_chart_export.ledger.heartbeats import Heartbeats
    from worker_chart_export.ledger.lease import LeaseTerms, StoredLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot
    from worker_chart_export.timing import Clock

#: A run that does not exist. Reading it shows whether Firestore answers.
PROBE_RUN_ID = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A step that this process has claimed.

    Attributes:
        run: The run that the claim was decided from.
        step: The step as it was before the claim.
        held: The lease.
        attempt: Which claim of the step this is, from 1.
        started_at: When the step was first claimed. It is part of the names of the step's objects, so it is
            kept when another worker takes the step over.
        commits: The group commit of the run. The claim keeps it alive.
        was_unleased: The step was RUNNING without a lease of its worker, for too long.
        operators: `retriedBy`, `releasedBy`: the operators (user@host) behind this claim, for log lines.
    """

    run: FlowRun
    step: Step
    held: HeldLease
    attempt: int
    started_at: datetime
    commits: RunCommits
    was_unleased: bool = False
    operators: Mapping[str, str] = field(default_factory=dict)


class StepLedger:
    """Claims, finalizes and releases steps. Shared by all threads.

    Attributes:
        terms: The settings of leases.
        finished: The steps that this process has finished lately.
        owner: This process in leases.

    Args:
        client: A Firestore client.
        clock: Its monotonic clock is used, and its wall clock where no read has brought the server's time.
        terms: The settings of leases.
        heartbeats: Renews the leases of the claims.
        owner: Who this process is in leases. None: host:pid:boot id.
    """

    def __init__(
        self,
        *,
        client: Any,
        clock: Clock,
        terms: LeaseTerms,
        heartbeats: Heartbeats,
        owner: str | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self.terms = terms
        self._heartbeats = heartbeats
        self._commits = GroupCommits(client=client, clock=clock)
        self._releases = Releases(commits=self._commits, heartbeats=heartbeats, clock=clock)
        self._reads: SingleFlight[str, RunSnapshot] = SingleFlight(
            partial(read_run, client, clock=clock), fresh=True
        )
        self.finished = FinishedSteps(clock)
        self.owner = owner or new_owner()

    def read(self, run_id: str, *, leases_of: Collection[str] = ()) -> RunSnapshot:
        """Read the run as it is now, with the leases of these steps. Bind its flow key to the log lines.

        Raises:
            RunInvalid: The document can't be read as a flow run.
            BackendUnavailable: Firestore is unavailable.
            BackendRefused: Firestore refuses.
        """
        with stage(Stage.READ, runId=run_id):
            if leases_of:
                snapshot = read_run(self._client, run_id, self._clock, leases_of=leases_of)
            else:
                snapshot = self._reads.get(run_id)
        bind(flowKey=snapshot.run.flow_key if snapshot.run else None)
        return snapshot

    def probe(self) -> None:
        """Check that Firestore answers a read, if need be on a new connection. Errors as `read`."""
        probe(self._client, FLOW_RUNS, PROBE_RUN_ID)

    def _server_time(self) -> datetime:
        """Return the time of a read now, by Firestore's clock. Errors as `read`."""
        read_time: datetime = read_document(self._client, FLOW_RUNS, PROBE_RUN_ID).read_time
        return read_time

    def create_run(self, run_id: str, document: Mapping[str, Any]) -> bool:
        """Create a run. Return False when a run of that id exists.

        Raises:
            BackendUnavailable: Firestore is unavailable.
            BackendRefused: Firestore refuses.
        """
        return create_document(self._client.collection(FLOW_RUNS).document(run_id), document)

    def claim(
        self,
        run_id: str,
        step_id: str,
        *,
        scope: CancelScope | None = None,
        message_id: str = "",
        snapshot: RunSnapshot | None = None,
        step_type: str | None = CHART_EXPORT,
    ) -> Claim | ClaimResult:
        """Claim a step or take it over. Return a `ClaimResult` with the reason when that fails.

        Args:
            run_id: The run.
            step_id: The step.
            scope: The wait for the claim ends with this scope, after 30 s at the latest.
            message_id: The message that names the step. Noted in the lease.
            snapshot: A recent read of the run. Without it, or when it proves stale, the claim reads the run.
            step_type: The type of step to claim. None: any type.

        Raises:
            RunInvalid: The run can't be read as a flow run, or is so full that it can't store the claim.
            BackendUnavailable: Firestore was unavailable, or each race was lost, for the whole time.
            BackendRefused: Firestore refuses.
            Interrupted: The scope was stopped with this error.
        """
        server_time = snapshot.server_time(self._clock.monotonic()) if snapshot else None
        offer = LeaseOffer(
            owner=self.owner,
            token=uuid4().hex,
            message_id=message_id,
            finished_at=rfc3339(server_time or self._clock.now()),
            terms=self.terms,
        )
        scope = scope or CancelScope(seconds=GIVE_UP_AFTER_SECONDS, clock=self._clock)
        limit = scope.child(min(GIVE_UP_AFTER_SECONDS, scope.remaining_seconds()))
        commits = self._commits.of(run_id)
        try:
            resolution = commits.submit(
                ClaimIntent(step_id=step_id, offer=offer, step_type=step_type),
                snapshot=snapshot,
                remaining_seconds=limit.remaining_seconds,
            )
        except BackendUnavailable:
            scope.check_stopped()  # if the step was stopped, this raises the error of the stop
            raise
        except (KeyboardInterrupt, SystemExit):  # the claim may have been committed, or be about to be
            commits.release_orphan(step_id, offer.token)
            raise
        return self._report_claim(run_id, step_id, resolution, commits)

    def _report_claim(
        self, run_id: str, step_id: str, resolution: Resolution, commits: RunCommits
    ) -> Claim | ClaimResult:
        """Log the claim, and start to renew its lease if it was won."""
        result: ClaimResult = resolution.result
        lease = resolution.lease.lease if result.claimed and resolution.lease else None
        attempt = lease.attempt if lease else None
        operators = operators_of(lease, result.taken_over)
        with bound(
            owner=self.owner,
            attempt=attempt,
            flowKey=result.run.flow_key if result.run else None,
            **operators,
        ):
            log_claim(result, attempt)
        step = result.run.step(step_id) if result.run else None
        if not result.claimed or result.run is None or step is None:
            return result
        held = self._hold(run_id, step_id, resolution)
        self._heartbeats.add(held)
        return Claim(
            run=result.run,
            step=step,
            held=held,
            attempt=held.lease.attempt,
            started_at=held.lease.started_at,
            commits=commits,
            was_unleased=result.taken_over is not None and result.taken_over.owner == UNKNOWN_OWNER,
            operators=operators,
        )

    def _hold(self, run_id: str, step_id: str, resolution: Resolution) -> HeldLease:
        stored, read = resolution.lease, resolution.snapshot
        if stored is None or read.read_time is None:
            raise AssertionError("unreachable: a claim that was won has its lease")
        lasts_seconds = (stored.lease.expires_at - read.read_time).total_seconds()
        margin_seconds = self.terms.lease_seconds - self.terms.trusted_seconds
        return HeldLease(
            run_id=run_id,
            step_id=step_id,
            stored=stored,
            trusted_until=read.asked_at + lasts_seconds - margin_seconds,
            clock=self._clock,
            server_time=read.server_time,
            flow_key=read.run.flow_key if read.run else None,
        )

    def finalize(
        self,
        claim: Claim,
        *,
        scope: CancelScope,
        manifest_uri: str | None = None,
        outputs: Mapping[str, Any] | None = None,
        error: StepError | None = None,
    ) -> FinalizeResult:
        """Write the step's result: RUNNING -> SUCCEEDED with the manifest, or with an error -> FAILED.

        A step of another type has `outputs` in place of a manifest.

        It is tried until the scope ends, for at least 30 s. A stop of the scope ends it at once.

        Raises:
            RunInvalid: The run can't be read as a flow run.
            BackendUnavailable: Firestore was unavailable, or each race was lost, for the whole time.
            BackendRefused: Firestore refuses.
        """
        limit = scope.child(max(GIVE_UP_AFTER_SECONDS, scope.remaining_seconds()))

        def remaining_seconds() -> float:
            with suppress(WorkerError):
                limit.check_stopped()  # stops it when the lease is lost
            return limit.remaining_seconds()

        intent = FinalizeIntent(
            step_id=claim.step.step_id,
            finished_at=rfc3339(claim.held.server_time()),
            manifest_uri=manifest_uri,
            outputs=outputs,
            error=error,
            token=claim.held.lease.token,
        )
        result: FinalizeResult = claim.commits.submit(
            intent, held=claim.held, remaining_seconds=remaining_seconds
        ).result
        if result.updated:
            self.finished.add(claim.run.run_id, claim.step.step_id)
        log_finalize(updated=result.updated, reason=result.reason, status=result.status)
        return result

    def finalize_unleased(
        self, snapshot: RunSnapshot, step_id: str, *, manifest_uri: str | None, error: StepError | None
    ) -> FinalizeResult:
        """Finalize a step that is RUNNING without a lease, unless a worker has a valid lease by now.

        Raises:
            RunInvalid: The run can't be read as a flow run.
            BackendUnavailable: Firestore was unavailable, or each race was lost, for 30 s.
            BackendRefused: Firestore refuses.
        """
        if snapshot.run is None:
            return FinalizeResult(updated=False, status=None, reason=Reason.RUN_MISSING)
        intent = FinalizeIntent(
            step_id=step_id,
            finished_at=rfc3339(snapshot.read_time or self._clock.now()),
            manifest_uri=manifest_uri,
            error=error,
        )
        result: FinalizeResult = (
            self._commits.of(snapshot.run.run_id).submit(intent, snapshot=snapshot).result
        )
        log_finalize(updated=result.updated, reason=result.reason, status=result.status)
        return result

    def release(self, claim: Claim, *, cause: WorkerError | None = None) -> ReleaseResult:
        """Release the step. `cause` is the error that ended the work on it; see `Releases.release`.

        Never raises: if the release fails, the lease expires.
        """
        return self._releases.release(claim.held, cause=cause)

    def clear(self, claim: Claim, lost: LeaseLost) -> None:
        """End a claim whose lease is lost: delete the lease if its step is not RUNNING. Never raises."""
        metrics.LEASES_LOST.inc()
        log.warning(Event.LEASE_LOST, f"Stopped working on the step: {lost}")
        self._releases.release(claim.held, is_lost=True)
        log_finalize(updated=False, reason=Reason.LEASE_LOST, status=None)

    def release_all(self, *, within_seconds: float) -> None:
        """Release every lease that this process still holds, just before it exits. Never raises."""
        self._releases.release_all(within_seconds=within_seconds)

    def forget(self, claim: Claim) -> None:
        """Stop renewing the lease: the work on the step has ended."""
        self._heartbeats.discard(claim.held)

    def confirm(self, claim: Claim) -> None:
        """Return if Firestore has the lease of this claim right now.

        Raises:
            LeaseLost: It has another lease, or none.
            BackendUnavailable: Firestore is unavailable.
            BackendRefused: Firestore refuses.
        """
        stored = read_lease(self._client, claim.held.run_id, claim.held.step_id)
        if stored is None or stored.lease.token != claim.held.lease.token:
            claim.held.lose("another worker has taken it")
        claim.held.check()

    def adopt(self, run_id: str, step_id: str, *, now: datetime | None) -> None:
        """Create a lease for a step that some worker runs without one, so that it expires in the end.

        Args:
            run_id: The run.
            step_id: The step.
            now: The server's time. None: ask for it.

        Raises:
            BackendUnavailable: Firestore is unavailable.
            BackendRefused: Firestore refuses.
        """
        grace_seconds = self.terms.unleased_grace_seconds
        log.warning(Event.STEP_UNLEASED, "The step is RUNNING without a lease", graceSeconds=grace_seconds)
        if grace_seconds > 0:
            lease = unleased(token=uuid4().hex, now=now or self._server_time(), grace_seconds=grace_seconds)
            create_document(lease_reference(self._client, run_id, step_id), lease.to_document())

    def expired_leases(self) -> Iterator[list[ExpiredLease]]:
        """Find the leases that have expired by the server's time; see `expired_leases.expired_leases`."""
        return expired_leases(self._client, before=self._server_time())

    def delete_lease(self, run_id: str, step_id: str, stored: StoredLease) -> bool:
        """Delete a lease unless it has changed; see `expired_leases.delete_lease`."""
        return delete_lease(self._client, run_id, step_id, stored)


def new_owner() -> str:
    """Return a name of this process for leases: host:pid:random boot id."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
