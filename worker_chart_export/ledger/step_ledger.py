"""The worker's book of claims: everything that is done to a step on behalf of this process.

The daemon's way to the decisions of `intents`: by group commit, under a lease that heart-beats renew.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.firestore import create_document, read_document
from worker_chart_export.concurrency.single_flight import SingleFlight
from worker_chart_export.errors import BackendUnavailable, StepError, WorkerError
from worker_chart_export.ledger.claim_log import log_claim, log_finalize
from worker_chart_export.ledger.commit.group_commit import GIVE_UP_AFTER_SECONDS, GroupCommits, within
from worker_chart_export.ledger.decisions import FLOW_RUNS
from worker_chart_export.ledger.expired_leases import ExpiredLease, delete_lease, expired_leases
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent
from worker_chart_export.ledger.lease import HeldLease, LeaseOffer, unleased
from worker_chart_export.ledger.releases import Releases
from worker_chart_export.ledger.run_snapshot import (
    lease_reference,
    read_lease,
    read_run,
    read_run_with_leases,
)
from worker_chart_export.observability.logs import Event, bound, log
from worker_chart_export.observability.observers import Stage, stage
from worker_chart_export.timing import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from datetime import datetime

    from worker_chart_export.concurrency.cancel_scope import CancelScope
    from worker_chart_export.inputs.flow_run import FlowRun, Step
    from worker_chart_export.ledger.commit.group_commit import RunCommits
    from worker_chart_export.ledger.commit.plan import Settled
    from worker_chart_export.ledger.decisions import ClaimResult, FinalizeResult, ReleaseResult
    from worker_chart_export.ledger.heartbeats import HeartBeats
    from worker_chart_export.ledger.lease import LeaseTerms, StoredLease
    from worker_chart_export.ledger.run_snapshot import RunSnapshot
    from worker_chart_export.timing import Clock

#: A document nobody has: reading it shows that Firestore answers.
NOBODYS_RUN = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A step that is this worker's to work.

    Attributes:
        run: The run as the claim saw it.
        step: The step, still as it was before the claim.
        held: The lease.
        commits: The group commit of the run, kept for what it knows of the run.
    """

    run: FlowRun
    step: Step
    held: HeldLease
    commits: RunCommits

    @property
    def started_at(self) -> datetime:
        """When the step was first claimed; part of its objects' names, so kept by take-overs."""
        return self.held.lease.started_at

    @property
    def attempt(self) -> int:
        """Which claim of the step this is, from 1."""
        return self.held.lease.attempt


class StepLedger:
    """Claims, finalizes and releases steps. Shared by all threads.

    Args:
        client: A Firestore client.
        clock: Gives the finishing times that are written, and the monotonic clock.
        terms: What leases go by.
        heart_beats: Renews the leases of the claims.
    """

    def __init__(self, *, client: Any, clock: Clock, terms: LeaseTerms, heart_beats: HeartBeats) -> None:
        self._client = client
        self._clock = clock
        self._terms = terms
        self._heart_beats = heart_beats
        self._commits = GroupCommits(client=client, clock=clock)
        self._releases = Releases(commits=self._commits, heart_beats=heart_beats, clock=clock)
        self._reads: SingleFlight[str, RunSnapshot] = SingleFlight(
            lambda run_id: read_run(client, run_id, clock), fresh=True
        )
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

    @property
    def terms(self) -> LeaseTerms:
        """What leases go by."""
        return self._terms

    def read(self, run_id: str, *, leases_of: Collection[str] = ()) -> RunSnapshot:
        """The run as it is now, with the leases of these steps.

        Raises:
            RunInvalid: The document can't be read as a flow run.
            BackendUnavailable: Firestore is away.
            BackendRefused: Firestore refuses.
        """
        with stage(Stage.READ, runId=run_id):
            if leases_of:
                return read_run_with_leases(self._client, run_id, leases_of, self._clock)
            return self._reads.get(run_id)

    def probe(self) -> None:
        """Ask Firestore for anything; errors as `read`."""
        read_document(self._client, FLOW_RUNS, NOBODYS_RUN)

    def create_run(self, run_id: str, document: Mapping[str, Any]) -> bool:
        """Put a run there if there is none of that id; whether it was put.

        Raises:
            BackendUnavailable: Firestore is away.
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
    ) -> Claim | ClaimResult:
        """Claim a step, or take it over; a `ClaimResult` says why it was not had.

        Args:
            run_id: The run.
            step_id: The step.
            scope: A stop ends the wait for the claim.
            message_id: The message under which it is taken.
            snapshot: The read that showed it to be claimable; it is not read again unless that proves stale.

        Raises:
            RunInvalid: The run can't be read as one.
            BackendUnavailable: Firestore was away, or the race could not be won, for 30 s.
            BackendRefused: Firestore refuses.
            Interrupted: What the budget was stopped with.
        """
        offer = LeaseOffer(
            owner=self.owner,
            token=secrets.token_hex(16),
            message_id=message_id,
            finished_at=rfc3339(self._clock.now()),
            terms=self._terms,
        )
        commits = self._commits.of(run_id)
        thirty = within(GIVE_UP_AFTER_SECONDS, self._clock)
        try:
            settled = commits.submit(
                ClaimIntent(step_id=step_id, offer=offer),
                snapshot=snapshot,
                patience_seconds=lambda: min(thirty(), scope.remaining_seconds() if scope else thirty()),
            )
        except BackendUnavailable:
            if scope is not None:
                scope.check_stopped()  # who was told to stop has nothing to say of the backend
            raise
        result: ClaimResult = settled.result
        attempt = settled.lease.lease.attempt if result.claimed and settled.lease else None
        with bound(owner=self.owner, attempt=attempt):
            log_claim(result, attempt)
        step = result.run.step(step_id) if result.run else None
        if not result.claimed or result.run is None or step is None:
            return result
        held = self._hold(run_id, step_id, settled)
        self._heart_beats.add(held)
        return Claim(run=result.run, step=step, held=held, commits=commits)

    def _hold(self, run_id: str, step_id: str, settled: Settled) -> HeldLease:
        stored, read = settled.lease, settled.snapshot
        if stored is None or read.read_time is None:
            raise AssertionError("unreachable: a claim that was won has its lease")
        lasts_seconds = (stored.lease.expires_at - read.read_time).total_seconds()
        margin_seconds = self._terms.lease_seconds - self._terms.trusted_seconds
        return HeldLease(
            run_id=run_id,
            step_id=step_id,
            stored=stored,
            trusted_until=read.asked_at + lasts_seconds - margin_seconds,
            clock=self._clock,
        )

    def succeed(self, claim: Claim, *, manifest_uri: str, scope: CancelScope) -> FinalizeResult:
        """RUNNING -> SUCCEEDED. Tried until the budget ends, 30 s at least, unless the step is stopped.

        Raises:
            RunInvalid: The run can't be read as one.
            BackendUnavailable: Firestore was away, or the race could not be won, for so long.
            BackendRefused: Firestore refuses.
        """
        return self._finalize(claim, scope, status="SUCCEEDED", manifest_uri=manifest_uri)

    def fail(self, claim: Claim, *, error: StepError, scope: CancelScope) -> FinalizeResult:
        """RUNNING -> FAILED; as `succeed`."""
        return self._finalize(claim, scope, status="FAILED", error=error)

    def _finalize(self, claim: Claim, scope: CancelScope, **result: Any) -> FinalizeResult:
        intent = FinalizeIntent(
            step_id=claim.step.step_id,
            finished_at=rfc3339(self._clock.now()),
            token=claim.held.lease.token,
            **result,
        )
        settled = claim.commits.submit(
            intent, held=claim.held, patience_seconds=_patience(scope, self._clock)
        )
        finalized: FinalizeResult = settled.result
        log_finalize(finalized)
        return finalized

    def release(self, claim: Claim, *, cause: BackendUnavailable | None = None) -> ReleaseResult:
        """Give the step back: at once without a cause (shutdown), else after a backoff.

        A step whose backend stays away too long is failed with that backend's code. Never raises: should
        Firestore not take it, the lease ends by itself.
        """
        return self._releases.release(claim.held, cause=cause)

    def clear(self, claim: Claim) -> None:
        """The lease is lost: delete it where its step is not RUNNING any more. Never raises."""
        self._releases.release(claim.held, is_lost=True)

    def release_all(self, *, within_seconds: float) -> None:
        """Release every lease this process still holds, just before it ends. Never raises."""
        self._releases.release_all(within_seconds=within_seconds)

    def forget(self, claim: Claim) -> None:
        """The work on it has ended, however it did: its lease is renewed no more."""
        self._heart_beats.discard(claim.held)

    def confirm(self, claim: Claim) -> None:
        """Return if the lease is still this claim's, as Firestore has it right now.

        Raises:
            LeaseLost: It is not.
            BackendUnavailable: Firestore is away.
            BackendRefused: Firestore refuses.
        """
        stored = read_lease(self._client, claim.held.run_id, claim.held.step_id)
        if stored is None or stored.lease.token != claim.held.lease.token:
            claim.held.lose("another worker has taken it")
        claim.held.check()

    def adopt(self, run_id: str, step_id: str, *, now: datetime | None) -> None:
        """Put a lease beside a step that a worker without leases runs, so that it ends some day.

        Raises:
            BackendUnavailable: Firestore is away.
            BackendRefused: Firestore refuses.
        """
        grace_seconds = self._terms.unleased_grace_seconds
        log.warning(
            Event.STEP_UNLEASED,
            "The step is RUNNING without a lease",
            graceSeconds=grace_seconds,
        )
        if grace_seconds > 0:
            lease = unleased(
                token=secrets.token_hex(16), now=now or self._clock.now(), grace_seconds=grace_seconds
            )
            create_document(lease_reference(self._client, run_id, step_id), lease.to_document())

    def expired_leases(self, *, before: datetime) -> Iterator[list[ExpiredLease]]:
        """Pages of the leases that ended before this time; see `expired_leases.expired_leases`."""
        return expired_leases(self._client, before=before)

    def delete_lease(self, run_id: str, step_id: str, stored: StoredLease) -> bool:
        """Delete a lease of nothing, if it is still as it was read; see `expired_leases.delete_lease`."""
        return delete_lease(self._client, run_id, step_id, stored)


def _patience(scope: CancelScope, clock: Clock) -> Callable[[], float]:
    """Finished work is worth waiting for, until the step is told to stop."""
    thirty = within(GIVE_UP_AFTER_SECONDS, clock)

    def left_seconds() -> float:
        try:
            scope.check_stopped()
        except WorkerError:
            return 0.0
        return max(thirty(), scope.remaining_seconds())

    return left_seconds
