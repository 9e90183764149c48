"""Retry and release steps for an operator: outside of any worker, in the same guarded commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker_chart_export.ledger.commit.group_commit import GroupCommits
from worker_chart_export.ledger.operator_intents import OperatorReleaseIntent, RetryIntent

if TYPE_CHECKING:
    from datetime import datetime

    from worker_chart_export.ledger.decisions import ReleaseResult
    from worker_chart_export.ledger.lease import Lease
    from worker_chart_export.ledger.operator_intents import RetryResult
    from worker_chart_export.timing import Clock


class OperatorLedger:
    """Changes steps for an operator. Shared by all threads.

    Args:
        client: A Firestore client.
        clock: Its monotonic clock is used.
        operator: Who does it, as user@host. Noted in the leases.
    """

    def __init__(self, *, client: Any, clock: Clock, operator: str) -> None:
        self._commits = GroupCommits(client=client, clock=clock)
        self._operator = operator

    def retry(
        self,
        run_id: str,
        step_id: str,
        *,
        failure: Any,
        charts_of: datetime | None,
        reopens_run: bool,
    ) -> RetryResult:
        """Make a FAILED step READY again; the arguments as in `RetryIntent`.

        Raises:
            RunInvalid: The run or the step can't be read.
            BackendUnavailable: Firestore was unavailable, or each race was lost, for 30 s.
            BackendRefused: Firestore refuses.
        """
        intent = RetryIntent(
            step_id=step_id,
            operator=self._operator,
            failure=failure,
            charts_of=charts_of,
            reopens_run=reopens_run,
        )
        result: RetryResult = self._commits.of(run_id).submit(intent).result
        return result

    def release(
        self, run_id: str, step_id: str, *, takes_unleased: bool
    ) -> tuple[ReleaseResult, Lease | None]:
        """End the lease of a RUNNING step now. Return the result and the lease as it is after that.

        Raises:
            RunInvalid: The run or the step can't be read.
            BackendUnavailable: Firestore was unavailable, or each race was lost, for 30 s.
            BackendRefused: Firestore refuses.
        """
        intent = OperatorReleaseIntent(
            step_id=step_id, operator=self._operator, takes_unleased=takes_unleased
        )
        resolution = self._commits.of(run_id).submit(intent)
        return resolution.result, resolution.lease.lease if resolution.lease else None
