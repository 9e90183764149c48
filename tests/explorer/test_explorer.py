"""Every interleaving of the core in a small world, in its short form; `make explore` runs the long one."""

from __future__ import annotations

from functools import cache

import pytest

from tests.explorer.broken import BROKEN, search
from tests.explorer.searches import SHORT, Setting

#: Each kind of move.
EVENTS = frozenset(
    {
        "a minute passes",
        "backend_refused",
        "backend_unavailable",
        "chart_api_call_finished",
        "chart_failed",
        "chart_reused",
        "chart_stored",
        "claim",
        "claim_attempt",
        "clear",
        "confirms its lease",
        "counts a call",
        "delivered twice",
        "drain_started",
        "finalize",
        "finalize_refused",
        "heartbeat",
        "intake_paused",
        "intake_resumed",
        "lease_deleted",
        "lease_found",
        "lease_lost",
        "lease_released",
        "manifest_written",
        "message_received",
        "message_settled",
        "no answer",
        "release",
        "step_completed",
        "step_noop",
        "step_unleased",
        "the late commit never arrives",
        "the late commit takes effect",
        "the process is frozen",
        "the process is killed",
        "the run document fills up",
        "the run is cancelled",
        "the run is deleted",
        "the step is READY again",
        "the step is cancelled",
        "wakes",
    }
)


@cache
def found_from(setting):
    """Search once."""
    return setting.search()


@pytest.mark.parametrize("setting", SHORT, ids=str)
def test_no_interleaving_violates_an_invariant(setting):
    """Two and three workers, with any one disturbance at any moment."""
    found = found_from(setting)
    assert found.is_complete
    assert found.violation is None, str(found)
    assert found.settled > 0


def test_all_that_can_happen_happens_somewhere():
    """A search that never got to a take-over or to a full document would show nothing of them."""
    assert found_from(Setting()).events | found_from(Setting(status="RUNNING")).events >= EVENTS


@pytest.mark.parametrize("core", BROKEN, ids=lambda core: core.__name__)
def test_a_broken_core_is_found_with_the_shortest_history(core):
    """`python -m tests.explorer --broken` prints the histories."""
    found = search(core)
    assert found.violation is not None
    assert BROKEN[core] in found.violation
    assert found.history[0].startswith("worker ")
    assert len(found.history) <= 12


def test_a_clock_that_stands_still_lets_a_worker_pay_too_late_and_nothing_else():
    """The fence does not need its clock, and the count of the calls neither."""
    setting = Setting(disturbances=0, clocks_off=1)
    found = setting.search(may_pay_late=False)
    assert found.violation is not None
    assert "may both pay and write for the same step" in found.violation
    assert setting.search(may_pay_late=True).violation is None
