"""What a decision goes by, and what it asks to be written. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from worker_chart_export.inputs.flow_run import FlowRun
    from worker_chart_export.ledger.lease.lease import Lease, StoredLease


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a decision goes by.

    Attributes:
        run: The run.
        lease: The step's lease; None also when it was not looked at.
        lease_is_known: Whether it was looked at.
        run_is_fresh: Whether the run was read for this very turn.
        read_time: The server's time of the read: what a lease is judged by and computed from; None with a
            minimal client.
        outcome_unknown: Whether an earlier commit for this very intent got no clear answer.
    """

    run: FlowRun | None
    lease: StoredLease | None = None
    lease_is_known: bool = False
    run_is_fresh: bool = False
    read_time: datetime | None = None
    outcome_unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWrite:
    """What becomes of a step's lease document.

    Attributes:
        lease: Its new content; None deletes it.
        guard: The `update_time` it must still have; None writes it whatever is there.
    """

    lease: Lease | None
    guard: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A result, and what must be committed for it to be true."""

    result: Any
    run_patch: Mapping[str, Any] | None = None
    lease_write: LeaseWrite | None = None

    @property
    def writes(self) -> bool:
        """Whether there is anything to commit."""
        return self.run_patch is not None or self.lease_write is not None
