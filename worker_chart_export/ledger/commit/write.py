"""Write a flow run and its leases in one atomic commit, with preconditions for all that it relies on.

No other code writes to a flow run, and no other code claims, finalizes or releases a step with a lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.errors import describe_error
from worker_chart_export.backends.firestore import Unacceptable, send
from worker_chart_export.ledger.decisions import FLOW_RUNS
from worker_chart_export.ledger.lease import LEASES, StoredLease

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_chart_export.ledger.decisions import LeaseWrite
    from worker_chart_export.ledger.run_snapshot import RunSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The documents after a commit.

    Attributes:
        run_update_time: The run's `update_time`, or None when the run was not written.
        leases: The leases that were written, by step id. None for a lease that was deleted.
    """

    run_update_time: Any
    leases: Mapping[str, StoredLease | None]


def commit(
    client: Any,
    run_id: str,
    snapshot: RunSnapshot,
    run_patch: Mapping[str, Any],
    leases: Mapping[str, LeaseWrite],
) -> Committed:
    """Write all of it or nothing.

    Args:
        client: A Firestore client.
        run_id: The run.
        snapshot: The read that the patch was decided from.
        run_patch: The patch of the run. Empty: the run is not written.
        leases: The writes to leases, by step id.

    Raises:
        LostRace: A precondition failed.
        OutcomeUnknown: There was no clear answer.
        Unacceptable: Firestore can't store it.
        BackendRefused: Firestore refuses.
    """
    run_reference = client.collection(FLOW_RUNS).document(run_id)
    try:
        batch = client.batch()
        if run_patch:
            option = client.write_option(last_update_time=snapshot.update_time)
            batch.update(run_reference, dict(run_patch), option=option)
        for step_id, write in leases.items():
            reference = run_reference.collection(LEASES).document(step_id)
            option = None if write.guard is None else client.write_option(last_update_time=write.guard)
            if write.lease is None:
                batch.delete(reference, option=option)
            elif option is None:
                batch.set(reference, write.lease.to_document())
            else:
                batch.update(reference, write.lease.to_document(), option=option)
    except (TypeError, ValueError) as error:
        raise Unacceptable(describe_error(error)) from error
    times = [result.update_time for result in send(batch)]
    run_update_time = times.pop(0) if run_patch else None
    stored = {}
    for (step_id, write), update_time in zip(leases.items(), times, strict=True):
        lease = write.lease
        stored[step_id] = None if lease is None else StoredLease(lease=lease, update_time=update_time)
    return Committed(run_update_time=run_update_time, leases=stored)
