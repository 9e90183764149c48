"""Status changes are read from the log of commits, each with the lease of its moment."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.chaos import history
from tests.chaos.world import world_on

PAST = datetime(2025, 12, 15, tzinfo=UTC)


@pytest.fixture
def world(cloud):
    """Return a world on an embedded cloud."""
    with world_on(cloud) as made:
        yield made


def test_a_finalize_has_the_lease_that_it_deleted(world):
    """A change has the lease that it deleted, the first commit of its token, and the writer."""
    run_id, (step_id,) = world.put_run()
    client = world.deployment.documents
    run, lease = world.documents.run(run_id), world.documents.lease(run_id, step_id)
    status = client.field_path("steps", step_id, "status")

    def commit(change_run, change_lease):
        batch = client.batch()
        batch.update(run, {status: change_run})
        change_lease(batch)
        batch.commit()
        return world.cloud.firestore.commits[-1].instant / 1_000_000

    content = {"token": "t", "owner": "host:7:boot", "acquiredAt": PAST}
    claimed_at = commit("RUNNING", lambda batch: batch.set(lease, content))
    lease.update({"expiresAt": PAST})
    commit("SUCCEEDED", lambda batch: batch.delete(lease))
    world.set_status(run_id, step_id, "READY")

    found, claims = world.history.facts()
    assert [(change.before, change.after, change.foreign) for change in found] == [
        (None, "READY", True),
        ("READY", "RUNNING", False),
        ("RUNNING", "SUCCEEDED", False),
        ("SUCCEEDED", "READY", True),
    ]
    final = found[2]
    assert (final.token, final.owner, final.acquired_at) == ("t", "host:7:boot", claimed_at)
    assert [(claim.at, claim.owner) for claim in claims] == [(claimed_at, "host:7:boot")]
    assert [change.lease_deleted for change in found] == [False, False, True, False]


def test_commits_that_were_taken_out_of_the_log_still_count(world, monkeypatch):
    """A change has the lease that an earlier commit wrote, although the log has that commit no more."""
    monkeypatch.setattr(history, "LATE_SECONDS", 0)
    run_id, (step_id,) = world.put_run()
    client = world.deployment.documents
    lease = world.documents.lease(run_id, step_id)
    lease.set({"token": "t", "owner": "host:7:boot", "acquiredAt": PAST})
    world.history.take_out()
    assert not world.cloud.firestore.commits
    world.documents.run(run_id).update({client.field_path("steps", step_id, "status"): "RUNNING"})
    for _ in range(2):  # what is read without taking it out is read again
        assert [change.after for change in world.history.facts()[0]] == ["READY", "RUNNING"]
    world.history.take_out()
    changes, claims = world.history.facts()
    assert [change.token for change in changes] == ["", "t"]
    assert len(claims) == 1
