"""`make load` in small: one daemon under duplicates, and what its figures are made of."""

from __future__ import annotations

from types import SimpleNamespace

from tests.load import figures
from tests.load.loads import Load
from tests.load.working import COLUMNS, work

FIRST = {"messageId": "m1", "publishTime": "2026-01-01T00:00:00+00:00"}
SETTLED = {"event": "message_settled", "messageId": "m1"}


def test_a_load_is_worked_off_and_measured():
    """Each figure is there, and no step of the load was lost or done twice."""
    cells, violations = work("small", Load(runs=2, steps=3, copies=3, daemons=1))
    row = dict(zip(COLUMNS, cells, strict=True))
    assert (violations, row["ended as"]) == ("", "6 SUCCEEDED")
    assert (row["steps"], row["messages"], row["leases lost"]) == ("6", "18", "0")
    assert float(row["daemons' CPU ms a step"]) > 0
    assert 50 < float(row["peak MiB of a daemon"]) < 200


def test_figures_count_what_the_logs_say():
    """A message that came again counts until its last settlement; a lease can be lost in two ways."""
    events = [
        {"event": "message_received", **FIRST},
        {**SETTLED, "time": "2026-01-01T00:00:10+00:00"},
        {"event": "lease_lost"},
        {"event": "message_received", **FIRST},
        {**SETTLED, "time": "2026-01-01T00:00:30+00:00"},
        {"event": "lease_taken_over"},
    ]
    world = SimpleNamespace(workers=[SimpleNamespace(events=events)])
    assert figures.oldest_seconds(world) == 30
    assert (figures.redelivered(world), figures.leases_lost(world)) == (1, 2)
