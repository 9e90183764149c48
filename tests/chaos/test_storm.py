"""A short storm and a few SIGTERMs at random moments. `make chaos` runs the long ones."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import pytest

from tests.chaos import storm
from tests.chaos.sigterms import lost_acks, sigterms
from tests.chaos.storm import Storm
from tests.chaos.world import world_on

SECONDS = 11.0
#: How many of the kinds that not every storm has.
KINDS = 4


@pytest.fixture
def seed():
    """Return `CHAOS_SEED` or a new seed; pytest prints it when the test fails."""
    chosen = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(2**31))
    print(f"CHAOS_SEED={chosen}")  # noqa: T201 - to play it again
    return chosen


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_storm_breaks_no_invariant(cloud, seed):
    """After random faults, kills, freezes, outages, status changes and others every invariant holds."""
    with world_on(cloud, **storm.SETTINGS) as world:
        report = Storm(world, seed=seed, seconds=SECONDS, kinds=KINDS).run()
    assert report.steps > 0


@pytest.mark.long
@pytest.mark.timeout(240)
def test_sigterm_at_random_moments(cloud, seed):
    """A daemon exits with 0 or 4 in time and loses no step and no ack of a finished step."""
    with world_on(cloud) as world:
        sigterms(world, times=5, seed=seed)


def test_a_violation_names_the_folder_with_the_logs(cloud, monkeypatch):
    """When the check finds a violation, the logs of the daemons and the facts are kept."""

    def find(*_arguments, **_options):
        raise AssertionError("a violation")

    monkeypatch.setattr(storm, "finish", find)
    with world_on(cloud) as world:
        world.put_run()
        worker = world.worker().started()
        with pytest.raises(AssertionError, match="a violation") as caught:
            Storm(world, seed=1, seconds=0).run()
    folder = Path(caught.value.__notes__[0].split()[-1])
    assert "daemon_started" in (folder / f"{worker.key}.log").read_text()
    assert "READY" in (folder / "transitions").read_text()
    shutil.rmtree(folder)


class LoggedDaemon:
    """A daemon with the given log, for the check of lost acks."""

    key = "key-1"

    def __init__(self, **lines):
        self._lines = lines

    def named(self, event):
        """Return its log entries with one event name."""
        return self._lines.get(event, [])


class LoggedWorld:
    """A world of such daemons."""

    def __init__(self, *workers):
        self.workers = workers


@pytest.mark.parametrize(("disposition", "lost"), [("ack", 1), ("nack", 0)])
def test_a_lost_ack_is_found(disposition, lost):
    """The check finds an acked message that was delivered again, and no other."""
    first = LoggedDaemon(
        message_received=[{"messageId": "1"}],
        message_settled=[{"messageId": "1", "disposition": disposition}],
    )
    second = LoggedDaemon(message_received=[{"messageId": "1"}])
    assert len(list(lost_acks(LoggedWorld(first, second)))) == lost
