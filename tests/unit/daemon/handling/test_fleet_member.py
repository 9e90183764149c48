"""The fleet's thread: when it reads the pause, when it sends a heartbeat, and how it leaves."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from daemon.handling import fleet_member
from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.handling.fleet_member import LOOK_SECONDS, FleetMember
from localcloud import Fault
from tests.support.charts.chart_img_samples import until
from tests.support.fakes import HandClock
from tests.support.metric_counts import value
from worker_chart_export.errors import OPERATOR, BackendUnavailable
from worker_chart_export.fleet.heartbeat import WORKERS, WorkerState, WorkerStatus
from worker_chart_export.fleet.pause import pause_fleet, resume_fleet

OWNER = "host:1:boot"
UNAVAILABLE = "firestore is unavailable"


class Stopping(threading.Event):
    """An event whose waits move a clock and are noted; it is set after so many of them."""

    def __init__(self, waits):
        super().__init__()
        self.clock = HandClock()
        self.left = waits
        self.seconds = []

    def wait(self, timeout=None):
        """Note the time; return whether this was the last wait."""
        self.seconds.append(timeout)
        self.clock.advance(timeout)
        self.left -= 1
        return not self.left


class Member:
    """A member of a fleet on the embedded Firestore.

    Attributes:
        states: What it is in, in turn; the last one stays.
        sent: The times of each status that was asked for: when it started, and its last read.
    """

    def __init__(self, documents, *states):
        self.documents = documents
        self.states = list(states)
        self.sent = []
        self.ticks = []
        self.breaker = CircuitBreaker(probes={"firestore": lambda: None})
        self.member = FleetMember(
            client=documents,
            breaker=self.breaker,
            owner=OWNER,
            status=self.status,
            on_tick=lambda: self.ticks.append(len(self.sent)),
        )

    def status(self, started_at, read_at):
        """Return the next status."""
        self.sent.append((started_at, read_at))
        return WorkerStatus(
            owner=OWNER,
            version="1",
            subscription="s",
            mode="mock",
            state=self.states.pop(0) if len(self.states) > 1 else self.states[0],
            reason="",
            slots=1,
            steps_running=0,
            started_at=started_at,
            last_seen_at=read_at,
        )

    def run(self, monkeypatch, *, waits):
        """Run its thread's function for so many waits; return how long each lasted."""
        stopping = Stopping(waits)
        monkeypatch.setattr(fleet_member, "time", SimpleNamespace(monotonic=stopping.clock.monotonic))
        self.member._stopping = stopping
        self.member._run()
        return stopping.seconds

    def heartbeats(self):
        """Return the owners of the documents that are stored."""
        return {found.id for found in self.documents.collection(WORKERS).stream()}


@pytest.fixture
def fleet(documents):
    """Return a ready member."""
    return Member(documents, WorkerState.READY)


def _events(lines, name):
    return [line for line in lines() if line["event"] == name]


def test_a_heartbeat_follows_every_second_read(fleet, documents, monkeypatch):
    """Old heartbeats are deleted first, and the start stays the time of the first read."""
    now = datetime.now(UTC)
    for owner, minutes in (("old", -1), ("live", 5)):
        documents.document(f"{WORKERS}/{owner}").set({"expiresAt": now + timedelta(minutes=minutes)})
    fleet.member.look_first()
    assert fleet.run(monkeypatch, waits=4) == [LOOK_SECONDS] * 4
    assert fleet.heartbeats() == {"live", OWNER}
    assert fleet.ticks == [2, 2, 3]  # the first status only says whether it is ready
    (start, first), *_, (still, last) = fleet.sent
    assert start == still == first < last


def test_without_a_first_read_no_heartbeat_is_sent(fleet, cloud, monkeypatch):
    """The server's time is not known, so the document would show a wrong one."""
    cloud.firestore.faults.add(Fault(error="UNAVAILABLE"))
    assert fleet.run(monkeypatch, waits=1) == [LOOK_SECONDS]
    assert fleet.sent == []


@pytest.mark.parametrize(("readings", "polls"), [(1, 1), (9, 2)])
def test_the_first_heartbeat_waits_a_moment_until_the_daemon_is_ready(
    documents, monkeypatch, readings, polls
):
    """It waits five seconds at most."""
    monkeypatch.setattr(fleet_member, "READY_POLL_SECONDS", 2.5)
    fleet = Member(documents, *[WorkerState.NOT_READY] * readings, WorkerState.READY)
    fleet.member.look_first()
    assert fleet.run(monkeypatch, waits=polls + 1) == [2.5] * polls + [LOOK_SECONDS]


def test_a_pause_is_followed_until_it_ends(fleet, documents):
    """The pause has no probe that could end it, and who paused is shown."""
    pause_fleet(documents, operator="ann@desk", reason="maintenance")
    for _ in range(2):
        fleet.member._look()
        (sentence,) = fleet.breaker.pauses.values()
        assert sentence.endswith("UTC: maintenance")
    pause = fleet.breaker._pauses[OPERATOR]
    assert (pause.probe(), pause.probe_seconds) == (sentence, math.inf)
    assert value("fleet_paused", operator="ann@desk", reason="maintenance") == 1
    fleet.breaker.resume(OPERATOR)
    fleet.member._look()
    assert not fleet.breaker.is_open  # nothing has changed
    resume_fleet(documents)
    pause_fleet(documents, operator="bob@desk", reason="")
    fleet.member._look()
    assert fleet.breaker.pauses[OPERATOR].startswith("operator bob@desk paused the fleet")
    resume_fleet(documents)
    fleet.member._look()
    assert (fleet.breaker.pauses, value("fleet_paused", operator="", reason="")) == ({}, 0)


def test_before_the_first_read_an_outage_pauses_the_intake(fleet, cloud, documents):
    """The fleet may be paused. The outage ends with the first read, which is the probe."""
    fault = cloud.firestore.faults.add(Fault(error="UNAVAILABLE"))
    fleet.member.look_first()
    (name, reason), *others = fleet.breaker.pauses.items()
    assert (name, others) == ("firestore", [])
    assert reason.startswith(UNAVAILABLE)
    cloud.firestore.faults.remove(fault)
    pause_fleet(documents, operator="ann@desk", reason="")
    assert fleet.breaker._pauses["firestore"].probe() is None
    assert OPERATOR in fleet.breaker.pauses


def test_a_refused_read_does_not_pause_the_intake(fleet, cloud, log_lines):
    """Only the pause of the fleet is not seen."""
    cloud.firestore.faults.add(Fault(error="PERMISSION_DENIED"))
    fleet.member.look_first()
    assert fleet.breaker.pauses == {}
    assert len(_events(log_lines, "backend_refused")) == 1


def test_each_outage_is_logged_once(fleet, log_lines):
    """An error of one thing that the thread does is no reason to leave out the other things."""
    results = ["1", "2", "", "4", "5"]

    def look():
        if reason := results.pop(0):
            raise BackendUnavailable("firestore", reason)

    for _ in range(5):
        fleet.member._safely(look)
    assert [line["message"][-1] for line in _events(log_lines, "backend_unavailable")] == ["1", "4"]


class Thread:
    """A thread that is joined for so long, and that still runs after so many questions."""

    daemon = True

    def __init__(self, alive):
        self.alive = list(alive)
        self.joined = []

    def is_alive(self):
        """Return the next answer."""
        return self.alive.pop(0)

    def join(self, seconds):
        """Note the time."""
        self.joined.append(seconds)


@pytest.mark.parametrize(
    ("alive", "within_seconds", "joined", "deleted"),
    [
        ([False], 9, [], [0.5]),
        ([True, False], 0.5, [0.25], [0.25]),
        ([True, True], 9, [0.5], []),
        ([], 0, [], []),
        ([], -1, [], []),
    ],
)
def test_leaving_takes_no_longer_than_it_may(fleet, monkeypatch, alive, within_seconds, joined, deleted):
    """A thread that still runs may write the document again, so it is left there."""
    calls = []
    monkeypatch.setattr(
        fleet_member, "delete_document", lambda *of, timeout_seconds: calls.append((*of, timeout_seconds))
    )
    fleet.member.look_first()
    thread = fleet.member._thread = Thread(alive)
    fleet.member.leave(within_seconds=within_seconds)
    assert thread.joined == joined
    assert calls == [(fleet.documents, WORKERS, OWNER, seconds) for seconds in deleted]


def test_a_member_that_starts_and_leaves_deletes_its_heartbeat(fleet):
    """The thread ends at once."""
    assert fleet.member._thread.daemon
    fleet.member.look_first()
    fleet.member.start()
    until(fleet.heartbeats)
    fleet.member.leave(within_seconds=1)
    assert not fleet.member._thread.is_alive()
    assert fleet.heartbeats() == set()


def test_without_a_first_read_there_is_nothing_to_delete(fleet, cloud):
    """No call is made at the end of a daemon that never reached Firestore."""
    fleet.member.leave(within_seconds=1)
    assert cloud.firestore.calls["Commit"] == 0
