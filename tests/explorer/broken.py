"""Cores that are broken on purpose: the explorer has to find what goes wrong with each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from daemon.handling.step_state import RescueAction
from tests.explorer.core import MINE, Answer, Core
from tests.explorer.search import NEVER_ENDS, Found
from tests.explorer.searches import Setting
from tests.explorer.state import NO_GUARD
from worker_chart_export.ledger.intents import ClaimIntent, FinalizeIntent, ReleaseIntent
from worker_chart_export.ledger.lease import Lease, LeaseOffer, StoredLease

if TYPE_CHECKING:
    from datetime import datetime

    from worker_chart_export.ledger.decisions import Decision, Observation


def _as_mine(stored: StoredLease | None) -> StoredLease | None:
    return stored and replace(stored, lease=replace(stored.lease, token=MINE))


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnfencedFinalize(FinalizeIntent):
    def decide(self, observation: Observation) -> Decision | None:
        """Take every lease for the own one."""
        return FinalizeIntent.decide(self, replace(observation, lease=_as_mine(observation.lease)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _TokenlessRelease(ReleaseIntent):
    def decide(self, observation: Observation) -> Decision | None:
        """Take every lease for the own one."""
        return ReleaseIntent.decide(self, replace(observation, lease=_as_mine(observation.lease)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _EndlessRelease(ReleaseIntent):
    def decide(self, observation: Observation) -> Decision | None:
        """Have no error to fail the step with."""
        return ReleaseIntent.decide(replace(self, error=None), observation)


@dataclass(frozen=True, slots=True, kw_only=True)
class _UncountedOffer(LeaseOffer):
    def after(self, earlier: Lease, now: datetime) -> Lease:
        """Keep the number of the attempt."""
        return replace(LeaseOffer.after(self, earlier, now), attempt=earlier.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RestartingOffer(LeaseOffer):
    def after(self, earlier: Lease, now: datetime) -> Lease:
        """Forget when the step was first claimed."""
        return replace(LeaseOffer.after(self, earlier, now), started_at=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _HastyClaim(ClaimIntent):
    def decide(self, observation: Observation) -> Decision | None:
        """Take leases over as soon as they end, without waiting for the clock skew."""
        offer = self.offer and replace(self.offer, terms=replace(self.offer.terms, clock_skew_seconds=0))
        lease = observation.lease
        if lease is not None and offer is not None and lease.lease.token != offer.token:
            ended = replace(lease.lease, expires_at=observation.read_time or lease.lease.expires_at)
            observation = replace(observation, lease=replace(lease, lease=ended))
        return ClaimIntent(step_id=self.step_id, form=self.form, offer=offer).decide(observation)


class WithoutFence(Core):
    """A finalize looks at no token."""

    finalize = _UnfencedFinalize


class WithoutPrecondition(Core):
    """A commit names the update times of nothing."""

    def _plan(self, *args: Any, **options: Any) -> Answer:
        answer = super()._plan(*args, **options)
        plan = answer.plan
        if plan is None:
            return answer
        return Answer(plan=plan._replace(run_guard=NO_GUARD, lease_guard=NO_GUARD))


class WithoutLeasePrecondition(Core):
    """A commit names the update time of the run, and not that of the lease."""

    def _plan(self, *args: Any, **options: Any) -> Answer:
        answer = super()._plan(*args, **options)
        plan = answer.plan
        return answer if plan is None else Answer(plan=plan._replace(lease_guard=NO_GUARD))


class ReleaseWithoutToken(Core):
    """A release looks at no token."""

    release = _TokenlessRelease


class WithoutEnd(Core):
    """A step is released for a backend without end."""

    release = _EndlessRelease


class WithoutVerification(Core):
    """A commit without an answer is taken for a lost race."""

    verifies = False


class WithoutCount(Core):
    """A take-over is no new attempt."""

    offer = _UncountedOffer


class WithoutStart(Core):
    """A take-over names its charts anew."""

    offer = _RestartingOffer


class WithoutSelfFence(Core):
    """A worker trusts its lease for ever."""

    fences_itself = False


class Hasty(Core):
    """A lease is taken over before it ends."""

    claim = _HastyClaim


class WithoutRescue(Core):
    """The rescue leaves all leases alone."""

    def on_expired(self, *_args: Any) -> RescueAction:
        """Leave it."""
        return RescueAction.LEAVE


#: Each broken core, with a part of the violation that it shows.
BROKEN: dict[type[Core], str] = {
    WithoutFence: "ends a step",
    WithoutPrecondition: "changes a step from CANCELLED to RUNNING",
    WithoutLeasePrecondition: "releases the lease of another worker",
    ReleaseWithoutToken: "releases the lease of another worker",
    WithoutEnd: "releases a step for a backend, which is release 11 of it",
    WithoutVerification: "was told that it has not",
    WithoutCount: "was claimed 3 times without a release or a result",
    WithoutStart: "pays for a chart that was stored before its claim",
    WithoutSelfFence: "may both pay and write for the same step",
    Hasty: "may both pay and write for the same step",
    WithoutRescue: NEVER_ENDS,
}


#: The disturbances of the searches that would go through 90,000 states with all kinds.
KINDS = {
    WithoutCount: frozenset({"the process is killed"}),
    WithoutStart: frozenset({"the process is killed", "drain_started"}),
    WithoutRescue: frozenset({"the process is killed", "the run is cancelled"}),
}


def search(core: type[Core]) -> Found:
    """Search with a broken core. That the work never ends shows only after all states."""
    releases = 10 if core is WithoutEnd else 0
    return Setting(disturbances=2, kinds=KINDS.get(core), releases=releases).search(core())
