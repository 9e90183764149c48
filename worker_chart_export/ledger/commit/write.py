"""One atomic commit on a run and its leases, whose preconditions prove everything it was decided from.

The only place that writes a flow run, and that claims, finalizes or releases under a lease.
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
    """What stands now.

    Attributes:
        run_update_time: The run's, or None when it was not written.
        leases: The leases written, by step; None for one that was deleted.
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
    """Write all of it or nothing. The SDK's own retry is off: it would turn a commit that landed into a loss.

    Raises:
        LostRace: A precondition failed.
        OutcomeUnknown: There was no clear answer.
        Unacceptable: Firestore can't store it.
        BackendRefused: Firestore refuses.
    """
    reference = client.collection(FLOW_RUNS).document(run_id)
    if snapshot.update_time is None and not leases:
        reference.update(dict(run_patch))  # a minimal client knows no preconditions
        return Committed(run_update_time=None, leases={})
    try:
        batch = client.batch()
        if run_patch:
            option = client.write_option(last_update_time=snapshot.update_time)
            batch.update(reference, dict(run_patch), option=option)
        for step_id, write in leases.items():
            _add(batch, client, reference.collection(LEASES).document(step_id), write)
    except (TypeError, ValueError) as error:
        raise Unacceptable(describe_error(error)) from error
    return _committed(send(batch), bool(run_patch), leases)


def _add(batch: Any, client: Any, reference: Any, write: LeaseWrite) -> None:
    if write.guard is None and write.lease is not None:
        batch.set(reference, write.lease.to_document())
        return
    option = None if write.guard is None else client.write_option(last_update_time=write.guard)
    if write.lease is None:
        batch.delete(reference, option=option)
    else:
        batch.update(reference, write.lease.to_document(), option=option)


def _committed(results: list[Any], run_is_written: bool, leases: Mapping[str, LeaseWrite]) -> Committed:  # noqa: FBT001 - says what the first result is of
    times = [result.update_time for result in results]
    run_update_time = times.pop(0) if run_is_written else None
    stored = {
        step_id: None if write.lease is None else StoredLease(lease=write.lease, update_time=update_time)
        for (step_id, write), update_time in zip(leases.items(), times, strict=True)
    }
    return Committed(run_update_time=run_update_time, leases=stored)
