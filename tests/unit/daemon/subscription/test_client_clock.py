"""Google's Pub/Sub client, whose waits must not follow a step of the wall clock.

The tests named `..._measures_by_the_wall_clock` fail when the client no longer does so. Then remove its
module from `daemon/subscription/client_clock.py`, and its line from docs/reliability.md.
"""

from __future__ import annotations

import datetime as dt
import queue
import time
from types import SimpleNamespace

import pytest
from google.api_core import bidi
from google.cloud.pubsub_v1.subscriber._protocol import helper_threads, leaser
from google.cloud.pubsub_v1.subscriber._protocol.requests import LeaseRequest

from daemon.subscription.client_clock import measure_waits_by_boot_clock

STEP_SECONDS = 3600.0
MAX_LATENCY_SECONDS = 0.01
ENTRIES = 5
WINDOW = dt.timedelta(seconds=10)


class OneRequest:
    """A queue with one request. The wall clock is set back while the client waits for it."""

    def __init__(self, wall):
        self._wall = wall
        self.timeouts = []

    def get(self, timeout=None):
        """Return the request; a second one does not come."""
        if timeout is None:
            self._wall.seconds -= STEP_SECONDS
            return "an ack"
        self.timeouts.append(timeout)
        raise queue.Empty


class Wall:
    """A wall clock that a test sets."""

    def __init__(self):
        self.seconds = 1_700_000_000.0
        self.slept = []

    def now(self):
        """Return the time of day."""
        return dt.datetime.fromtimestamp(self.seconds, dt.UTC).replace(tzinfo=None)


@pytest.fixture
def wall(monkeypatch):
    """Set the wall clock of this process, and put the client on it, as the client is by itself."""
    wall = Wall()
    shown = type("Shown", (dt.datetime,), {"now": wall.now})
    monkeypatch.setattr(time, "time", lambda: wall.seconds)
    monkeypatch.setattr(time, "sleep", wall.slept.append)
    for module in (helper_threads, leaser, bidi):
        monkeypatch.setattr(module, "time", time)
    clocks = SimpleNamespace(**{**vars(dt), "datetime": shown})
    monkeypatch.setattr("daemon.subscription.client_clock.dt", clocks)
    monkeypatch.setattr(bidi, "datetime", clocks)
    return wall


@pytest.fixture
def boot(wall):
    """Put the client on the boot clock, as the daemon does."""
    measure_waits_by_boot_clock()
    return wall


def _wait_after_the_step(wall):
    requests = OneRequest(wall)
    helper_threads._get_many(requests, max_items=100, max_latency=MAX_LATENCY_SECONDS)
    (timeout,) = requests.timeouts
    return timeout


def _age_of_a_message():
    """Return the time at which the client says that it received a message."""
    messages = leaser.Leaser(manager=None)
    messages.add([LeaseRequest("ack-id", 10, "", None)])
    messages.start_lease_expiry_timer(["ack-id"])
    return messages._leased_messages["ack-id"].sent_time


def _pause_before_the_stream(wall):
    throttle = bidi._Throttle(access_limit=ENTRIES, time_window=WINDOW)
    for _ in range(ENTRIES):
        with throttle:
            pass
    wall.seconds -= STEP_SECONDS
    with throttle as waited:
        return waited


def test_the_dispatcher_measures_by_the_wall_clock(wall):
    """After a step back an ack waits for as long as the step."""
    assert _wait_after_the_step(wall) >= STEP_SECONDS


def test_the_leaser_measures_by_the_wall_clock(wall):
    """After a step forward every message in progress is older than the longest lease."""
    assert _age_of_a_message() == wall.seconds


def test_the_throttle_of_a_stream_measures_by_the_wall_clock(wall):
    """After a step back a stream that is opened too often waits for as long as the step."""
    assert _pause_before_the_stream(wall) >= STEP_SECONDS
    assert len(wall.slept) == 1


def test_the_dispatcher_of_the_daemon_does_not(boot):
    """After a step back an ack waits no longer than ever."""
    assert _wait_after_the_step(boot) <= MAX_LATENCY_SECONDS


def test_the_leaser_of_the_daemon_does_not(boot):
    """The age of a message is measured by the boot clock."""
    del boot
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= _age_of_a_message() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_the_throttle_of_the_daemon_does_not(boot):
    """The pause is part of the window."""
    assert 0 < _pause_before_the_stream(boot) <= WINDOW.total_seconds()
    assert len(boot.slept) == 1


def test_a_client_that_measures_otherwise_is_left_alone(monkeypatch):
    """A module that has no such clock, or one of its own, stays as it is."""
    monkeypatch.delattr(helper_threads, "time")
    own = SimpleNamespace(time=time.monotonic)
    monkeypatch.setattr(leaser, "time", own)
    measure_waits_by_boot_clock()
    assert not hasattr(helper_threads, "time")
    assert leaser.time is own
