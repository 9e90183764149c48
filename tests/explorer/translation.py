"""Translate a decision of the core into a commit of the model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.explorer.contents import MINE, RESULTS, keep
from tests.explorer.state import ABSENT_GUARD, CURRENT, DELETE, KEEP, NO_GUARD, WRITE, Plan
from worker_chart_export.ledger.decisions import ABSENT, ClaimResult

if TYPE_CHECKING:
    from worker_chart_export.ledger.decisions import Decision


def translated(decision: Decision, run: Any, step: int) -> Plan:
    """Return the commit, with guards that hold. `run` is what `contents.run_seen_by` returns."""
    patch, write = decision.run_patch or {}, decision.lease_write
    field = f"steps.s{step}."
    op, content, has_token, guard = KEEP, -1, False, NO_GUARD
    if write is not None:
        guard = {ABSENT: ABSENT_GUARD, None: NO_GUARD}.get(write.guard, CURRENT)
        op = DELETE if write.lease is None else WRITE
        if write.lease is not None:
            content, has_token = keep(write.lease), write.lease.token == MINE
    return Plan(
        step=step,
        status=patch.get(f"{field}status", ""),
        marks=patch.get(f"{field}finishedAt") == MINE,
        size=_growth(patch, field, run, step),
        run_guard=CURRENT if patch else NO_GUARD,
        lease_op=op,
        lease=content,
        has_token=has_token,
        lease_guard=guard,
        result=RESULTS.number(_without_run(decision.result)),
        age=0,
    )


def _without_run(result: Any) -> Any:
    """Return what the worker goes by: not the run, and of the former lease only that it had no owner."""
    if not isinstance(result, ClaimResult):
        return result
    return replace(result, run=None, taken_over=None, lease_seconds_left=None)


def _growth(patch: Any, field: str, run: Any, step: int) -> int:
    """Return how much the patch lets the document grow: 3 with outputs or details, 0 not at all."""
    error = patch.get(f"{field}error")
    if any(name.startswith(f"{field}outputs") for name in patch) or (
        isinstance(error, dict) and error.get("details")
    ):
        return 3
    if isinstance(error, dict):
        return 2
    return 1 if patch and run[1][step][0] == "READY" else 0
