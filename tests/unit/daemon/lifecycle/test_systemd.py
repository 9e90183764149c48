"""The notifications to systemd."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from daemon.lifecycle.systemd import SdNotify, ServiceManager
from daemon.settings import SettingsError
from tests.support.fakes import HandClock


class Inbox:
    """A notify socket. A datagram is in it as soon as it was sent."""

    def __init__(self, address):
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def take(self):
        """Return the lines of each datagram since the last call."""
        datagrams = []
        while True:
            try:
                datagrams.append(self.socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return datagrams


@pytest.fixture(params=["path", "abstract"])
def inbox(request, tmp_path):
    """Return one inbox of each kind."""
    path = tmp_path / "notify"
    made = Inbox(str(path) if request.param == "path" else f"@{path}")
    yield made
    made.socket.close()


@pytest.fixture
def process():
    """Return the report of the process, which the test sets."""
    return SimpleNamespace(dead=None, status="Pulling", clock=HandClock())


@pytest.fixture
def new_notify(process):
    """Make a notifier for the manager in an environment; its thread ends with the test."""
    made = []

    def new(**environment):
        notify = SdNotify(
            ServiceManager.of(environment),
            why_dead=lambda: process.dead,
            status=lambda: process.status,
            clock=process.clock.monotonic,
        )
        made.append(notify)
        return notify

    yield new
    for notify in made:
        notify.close()


@pytest.fixture
def check_once(process, inbox):
    """Advance the time and run one check of the notifier's thread; return the sent lines."""

    def checked(notify, *, after=0.0):
        process.clock.advance(after)
        notify._notify(notify._manager)
        return [line for lines in inbox.take() for line in lines]

    return checked


def notify_threads():
    """Return the number of notifier threads."""
    return [thread.name for thread in threading.enumerate()].count("notify")


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "1000000"}])
def test_without_the_variable_nothing_is_sent_and_no_thread_is_started(new_notify, environment, process):
    """Without NOTIFY_SOCKET nothing is sent and no thread is started."""
    process.status = None  # never read
    before = notify_threads()
    notify = new_notify(**environment)
    notify.start()
    notify.ready()
    notify.stopping(ends_at=0)
    assert notify_threads() == before


def test_ready_is_sent_at_once_and_once(new_notify, inbox):
    """READY is sent once and at once, with a status."""
    notify = new_notify(NOTIFY_SOCKET=inbox.address)
    notify.ready()
    notify.ready()
    assert inbox.take() == [["READY=1", "STATUS=Pulling"]]


def test_stopping_extends_the_time_by_the_drain(new_notify, inbox, process):
    """STOPPING asks for the time of the drain plus 5 s for the exit."""
    notify = new_notify(NOTIFY_SOCKET=inbox.address)
    notify.ready()
    process.status = "Draining"
    notify.stopping(ends_at=process.clock.monotonic() + 25.5)
    assert inbox.take()[1] == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=30500000", "STATUS=Draining"]


def test_a_status_is_sent_when_it_changes(new_notify, inbox, check_once, process):
    """A status is sent when it changes, and only then."""
    notify = new_notify(NOTIFY_SOCKET=inbox.address)
    notify.ready()
    inbox.take()
    assert check_once(notify) == []
    process.status = "Waiting"
    assert check_once(notify) == ["STATUS=Waiting"]
    assert check_once(notify) == []


def test_a_status_is_one_line(new_notify, inbox, check_once, process):
    """A status is one line, because a second line would set a variable."""
    process.status = "Waiting:\nMAINPID=1"
    assert check_once(new_notify(NOTIFY_SOCKET=inbox.address))[0] == "STATUS=Waiting: MAINPID=1"


@pytest.mark.parametrize("watchdog_seconds", [1, 3, 8, 30, 600])
def test_the_watchdog_is_fed_within_half_its_time(new_notify, inbox, check_once, watchdog_seconds):
    """The watchdog is fed within half its time, whenever the thread checks."""
    notify = new_notify(NOTIFY_SOCKET=inbox.address, WATCHDOG_USEC=str(watchdog_seconds * 10**6))
    notify.ready()
    check_seconds, silent_seconds, longest = notify._manager.check_seconds, 0.0, 0.0
    for _ in range(200):
        silent_seconds += check_seconds
        longest = max(longest, silent_seconds)
        if "WATCHDOG=1" in check_once(notify, after=check_seconds):
            silent_seconds = 0.0
    assert longest <= watchdog_seconds / 2


def test_without_a_watchdog_none_is_fed(new_notify, inbox, check_once, process, log_lines):
    """Without WatchdogSec= nothing is fed."""
    notify = new_notify(NOTIFY_SOCKET=inbox.address)
    notify.ready()
    inbox.take()
    assert check_once(notify, after=100) == []
    process.dead = "loop main is silent"
    assert (check_once(notify, after=100), log_lines()) == ([], [])


def test_the_watchdog_of_another_process_is_not_fed(inbox):
    """The watchdog of another process is not fed: WATCHDOG_PID names its owner."""
    named = {"NOTIFY_SOCKET": inbox.address, "WATCHDOG_USEC": "1000000"}
    own, other = str(os.getpid()), str(os.getppid())
    assert ServiceManager.of(named).watchdog_seconds == 1.0
    assert ServiceManager.of({**named, "WATCHDOG_PID": own}).watchdog_seconds == 1.0
    assert ServiceManager.of({**named, "WATCHDOG_PID": other}).watchdog_seconds is None


def test_a_loop_that_froze_stops_the_watchdog_and_its_end_starts_it_again(
    new_notify, inbox, check_once, process, log_lines
):
    """A frozen loop stops the watchdog and is logged once; when it continues, feeding starts again."""
    notify = new_notify(NOTIFY_SOCKET=inbox.address, WATCHDOG_USEC="8000000")
    notify.ready()
    inbox.take()
    assert check_once(notify, after=2) == ["WATCHDOG=1"]
    process.dead = "loop main is silent for 31 s, more than 30 s"
    assert [check_once(notify, after=2) for _ in range(3)] == [[], [], []]
    assert [(line["severity"], process.dead in line["message"]) for line in log_lines()] == [("ERROR", True)]
    process.dead = None
    assert check_once(notify) == ["WATCHDOG=1"]


def test_while_it_starts_the_time_to_start_is_extended(new_notify, inbox, check_once):
    """While the daemon starts and waits for a backend, the start time is extended."""
    notify = new_notify(NOTIFY_SOCKET=inbox.address, WATCHDOG_USEC="30000000")
    assert check_once(notify) == ["STATUS=Pulling", "EXTEND_TIMEOUT_USEC=30000000"]
    assert check_once(notify, after=1) == []
    assert check_once(notify, after=4) == ["EXTEND_TIMEOUT_USEC=30000000"]


def test_a_start_that_froze_is_not_extended(new_notify, inbox, check_once, process):
    """A frozen start is not extended, so TimeoutStartSec ends it."""
    notify = new_notify(NOTIFY_SOCKET=inbox.address)
    check_once(notify)
    process.dead = "loop main is silent"
    assert check_once(notify, after=10) == []


def test_a_drain_is_alive_until_its_end_and_no_longer(new_notify, inbox, check_once, process):
    """A drain is fed until its end and not longer, so that systemd kills a hanging one."""
    notify = new_notify(NOTIFY_SOCKET=inbox.address, WATCHDOG_USEC="8000000")
    notify.ready()
    notify.stopping(ends_at=process.clock.monotonic() + 10)
    inbox.take()
    assert [check_once(notify, after=3) for _ in range(4)] == [["WATCHDOG=1"]] * 3 + [[]]


def test_a_socket_that_vanished_is_logged_once_and_gets_the_state_when_it_is_back(
    tmp_path, new_notify, log_lines
):
    """A socket that vanished is logged once, and the current state is sent when it is back."""
    path = str(tmp_path / "notify")
    notify = new_notify(NOTIFY_SOCKET=path)
    notify.ready()
    notify.ready()
    (line,) = log_lines()
    assert (line["severity"], "READY=1 to the service manager: No such file" in line["message"]) == (
        "WARNING",
        True,
    )
    inbox = Inbox(path)
    notify._notify(notify._manager)
    assert inbox.take() == [["READY=1", "STATUS=Pulling"]]
    inbox.socket.close()
    notify.stopping(ends_at=0)
    assert ["send STOPPING=1" in line["message"] for line in log_lines()] == [False, True]


def test_a_manager_with_a_full_queue_delays_little(tmp_path, new_notify, log_lines):
    """A manager with a full queue delays a sender by at most one second."""
    inbox = Inbox(str(tmp_path / "notify"))
    filling = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    filling.connect(inbox.address)
    while select.select([], [filling], [], 0)[1]:
        filling.send(b"STATUS=")
    notify = new_notify(NOTIFY_SOCKET=inbox.address)
    notify.ready()
    assert "READY=1 to the service manager: timed out" in log_lines()[0]["message"]
    inbox.take()
    notify.ready()
    assert inbox.take() == [["READY=1", "STATUS=Pulling"]]
    filling.close()
    inbox.socket.close()


def test_the_thread_sends_until_it_is_closed(new_notify, inbox, process):
    """The thread sends by itself from its start until it is closed."""
    inbox.socket.settimeout(10)
    process.clock.monotonic = time.monotonic
    notify = new_notify(NOTIFY_SOCKET=inbox.address, WATCHDOG_USEC="40000")
    notify.start()
    assert inbox.socket.recv(1000).startswith(b"STATUS=Pulling")
    notify.ready()
    while inbox.socket.recv(1000) != b"WATCHDOG=1":
        pass
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "notify"]
    notify.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "wrong",
    [
        {"NOTIFY_SOCKET": "run/notify"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "0"},
    ],
)
def test_invalid_values_of_systemd_are_wrong_settings(wrong):
    """Invalid values of systemd's variables are reported as wrong settings with their value."""
    with pytest.raises(SettingsError, match=f"{list(wrong)[-1]}: expected .* got {list(wrong.values())[-1]}"):
        ServiceManager.of(wrong)
