"""Notify systemd: ready, stopping, a status for people, and keep-alive messages.

The protocol is sd_notify(3): lines of `NAME=value` in one datagram to the socket named by NOTIFY_SOCKET. A
process that was started without that variable sends nothing and starts no thread.

Keep-alives are sent only while the loops of this process tick. Before the stream is open they extend the
start timeout: a backend may be unavailable for any time, but a start that hangs ends. Later they reset the
watchdog. The drain has its own time limit, which is sent to systemd; until then the process counts as alive.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from daemon.settings import SettingsError
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: How often to check for a changed status.
CHECK_SECONDS = 1.0
#: The time between two keep-alives, unless the watchdog needs them more often.
KEEP_ALIVE_SECONDS = 5.0
#: Each keep-alive extends the start timeout to this time from now.
START_EXTENSION_SECONDS = 30.0
#: The time for the exit of the process after the end of the drain.
STOP_EXTENSION_SECONDS = 5.0
#: systemd's queue may be full; a notification waits no longer than this.
SEND_SECONDS = 1.0


class Phase(StrEnum):
    """The phase of the service; the value is the line that announces it."""

    STARTING = ""  # systemd expects no line for it
    READY = "READY=1"
    STOPPING = "STOPPING=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceManager:
    """The address of systemd, and what it expects.

    Attributes:
        address: The datagram socket; a first byte of zero means the abstract namespace.
        watchdog_seconds: systemd kills the process after this time without a keep-alive; None = never.
    """

    address: str
    watchdog_seconds: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self | None:
        """Read the variables of systemd; None if the process was started without them.

        Raises:
            SettingsError: A variable has a value that systemd never sets.
        """
        address = environment.get("NOTIFY_SOCKET", "")
        if not address:
            return None
        if address[0] not in "/@":
            raise SettingsError([f"NOTIFY_SOCKET: expected /path or @name, got {address:.200}"])
        address = f"\0{address[1:]}" if address[0] == "@" else address
        return cls(address=address, watchdog_seconds=_watchdog_seconds(environment))

    @property
    def keep_alive_seconds(self) -> float:
        """The time between two keep-alives; together with one check at most half the watchdog's time."""
        return min(KEEP_ALIVE_SECONDS, (self.watchdog_seconds or math.inf) / 4)

    @property
    def check_seconds(self) -> float:
        """The time between two checks for something to send."""
        return min(CHECK_SECONDS, self.keep_alive_seconds)

    def send(self, lines: list[str]) -> None:
        """Send one datagram.

        Raises:
            OSError: It was not accepted.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.settimeout(SEND_SECONDS)
            # A socket without a peer always seems ready, and a full queue would be tried again all the time.
            out.connect(self.address)
            out.send("\n".join(lines).encode())


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """Return the watchdog's time. None: no watchdog watches this process (see sd_watchdog_enabled(3))."""
    wanted = environment.get("WATCHDOG_USEC", "")
    if not wanted or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not wanted.isdecimal() or int(wanted) == 0:
        raise SettingsError([f"WATCHDOG_USEC: expected microseconds, got {wanted:.200}"])
    return int(wanted) / 1e6


class SdNotify:
    """Notifies systemd. Shared by all threads; never raises, and never waits for more than a second.

    Args:
        manager: systemd; None = send nothing.
        why_dead: Returns why the process should be restarted, or None. No keep-alives while it should.
        status: Returns a short description of what the process does.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        manager: ServiceManager | None,
        *,
        why_dead: Callable[[], str | None],
        status: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._why_dead = why_dead
        self._status = status
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._phase = self._sent_phase = Phase.STARTING
        self._sent_status = ""
        self._ends_at = math.inf
        self._keep_alive_due = clock()
        self._was_sent = self._was_alive = True

    def start(self) -> None:
        """Send keep-alives and changes from now on, from a separate thread."""
        manager = self._manager
        if manager is None:
            return

        def run() -> None:
            self._notify(manager)
            while not self._closed.wait(manager.check_seconds):
                self._notify(manager)

        threading.Thread(target=run, name="notify", daemon=True).start()

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()

    def ready(self) -> None:
        """Announce that the process works."""
        self._enter(Phase.READY)

    def stopping(self, *, ends_at: float) -> None:
        """Announce the stop of the process, and the latest time of its end."""
        self._ends_at = ends_at
        self._enter(Phase.STOPPING)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        if self._manager is not None:
            self._notify(self._manager)

    def _notify(self, manager: ServiceManager) -> None:
        """Send changes and the keep-alive that is due; the next check repeats what was not accepted."""
        with self._lock:
            now = self._clock()
            # A line break would start another variable.
            phase, status = self._phase, " ".join(self._status().split())
            changes = []
            if phase is not self._sent_phase:
                changes.append(phase.value)
                if phase is Phase.STOPPING:
                    changes.append(_extend_timeout(self._ends_at - now + STOP_EXTENSION_SECONDS))
            if status != self._sent_status:
                changes.append(f"STATUS={status}")
            keep_alive = self._keep_alive(manager, now) if now >= self._keep_alive_due else []
            if not (changes or keep_alive) or not self._is_sent(manager, changes + keep_alive):
                return
            self._sent_phase, self._sent_status = phase, status
            if keep_alive:
                self._keep_alive_due = now + manager.keep_alive_seconds

    def _keep_alive(self, manager: ServiceManager, now: float) -> list[str]:
        """Return the keep-alive line, or none for a dead process; why it is dead is logged once."""
        if self._phase is Phase.STARTING:
            line = _extend_timeout(START_EXTENSION_SECONDS)
        elif manager.watchdog_seconds:
            line = "WATCHDOG=1"
        else:
            return []
        if now >= self._ends_at:
            return []
        reason = self._why_dead()
        if reason is not None and self._was_alive:
            log.error(Event.LIVENESS_LOST, f"No more keep-alives for the service manager: {reason}")
        self._was_alive = reason is None
        return [line] if self._was_alive else []

    def _is_sent(self, manager: ServiceManager, lines: list[str]) -> bool:
        """Send the lines. A failure is logged once until a datagram is accepted again; the work continues."""
        try:
            manager.send(lines)
        except OSError as error:
            if self._was_sent:
                message = f"Could not send {lines[0]} to the service manager: {error.strerror or error}"
                log.warning(Event.NOTIFY_FAILED, message)
            self._was_sent = False
            return False
        self._was_sent = True
        return True


def _extend_timeout(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={math.ceil(seconds * 1e6)}"
