"""What systemd is told: ready, stopping, a status for people, and signs of life.

The protocol is that of sd_notify(3): lines of `NAME=value` in one datagram to the socket that NOTIFY_SOCKET
names. A process that was not started with it tells nobody and starts no thread.

A sign of life is sent only while this process's own loops tick. Before the stream is open it extends the time
to start: a backend may be away as long as it likes, and a frozen start still ends. Afterwards it feeds the
watchdog. The drain has an end of its own, which is told; until then the process counts as alive.
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

from daemon.settings.base import SettingsError
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: How often it is looked whether the status has changed.
LOOK_SECONDS = 1.0
#: Signs of life are so far apart where no watchdog wants them closer.
SIGN_SECONDS = 5.0
#: Each sign of life while starting is worth so many seconds.
START_EXTENSION_SECONDS = 30.0
#: Beyond the drain's own end: what the end of a process takes.
STOP_EXTENSION_SECONDS = 5.0
#: systemd's queue may be full; whoever tells it something waits no longer than this.
SEND_SECONDS = 1.0


class Phase(StrEnum):
    """Where the service is in its life; the value is what tells systemd so."""

    STARTING = ""  # it knows
    READY = "READY=1"
    STOPPING = "STOPPING=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceManager:
    """How to reach systemd, and what it expects.

    Attributes:
        address: The datagram socket; a first byte of zero is the abstract namespace.
        watchdog_seconds: Without a sign of life for so long the process is killed; None = never.
    """

    address: str
    watchdog_seconds: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self | None:
        """The one that started this process; None when none wants to be told.

        Raises:
            SettingsError: Its variables hold what systemd never writes.
        """
        address = environment.get("NOTIFY_SOCKET", "")
        if not address:
            return None
        if address[0] not in "/@":
            raise SettingsError([f"NOTIFY_SOCKET: expected /path or @name, got {address:.200}"])
        address = f"\0{address[1:]}" if address[0] == "@" else address
        return cls(address=address, watchdog_seconds=_watchdog_seconds(environment))

    @property
    def sign_seconds(self) -> float:
        """The time between two signs of life; with the look for it, half the watchdog's time at most."""
        return min(SIGN_SECONDS, (self.watchdog_seconds or math.inf) / 4)

    @property
    def look_seconds(self) -> float:
        """The time between two looks for something to tell."""
        return min(LOOK_SECONDS, self.sign_seconds)

    def send(self, lines: list[str]) -> None:
        """Send one datagram.

        Raises:
            OSError: Nobody takes it.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.settimeout(SEND_SECONDS)
            out.sendto("\n".join(lines).encode(), self.address)


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """The watchdog's time, if it is this very process that is watched (sd_watchdog_enabled(3))."""
    wanted = environment.get("WATCHDOG_USEC", "")
    if not wanted or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not wanted.isdecimal() or int(wanted) == 0:
        raise SettingsError([f"WATCHDOG_USEC: expected microseconds, got {wanted:.200}"])
    return int(wanted) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What can be told of a process besides that it is alive.

    Attributes:
        phase: Where it is in its life.
        status: What it does, in a few words.
    """

    phase: Phase
    status: str

    def lines_after(self, told: Report, *, seconds_to_end: float) -> list[str]:
        """What is new since the report that was told last."""
        is_new_phase = self.phase is not told.phase
        lines = [self.phase.value] if is_new_phase else []
        if is_new_phase and self.phase is Phase.STOPPING:
            lines.append(_extension(seconds_to_end + STOP_EXTENSION_SECONDS))
        if self.status != told.status:
            # A line break would begin another variable.
            lines.append(f"STATUS={' '.join(self.status.split())}")
        return lines


def _extension(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={math.ceil(seconds * 1e6)}"


class SdNotify:
    """Tells systemd how this process is. Shared by all threads; never raises, and never waits for long.

    Args:
        manager: Whom to tell; None = nobody.
        why_dead: Gives the reason why the process should be restarted; no sign of life while there is one.
        status: Gives what the process does, in a few words.
        clock: Seconds that never go back.
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
        self._phase = Phase.STARTING
        self._ends_at = math.inf
        self._told = Report(phase=Phase.STARTING, status="")
        self._sign_due = clock()
        self._is_heard = self._was_alive = True

    def start(self) -> None:
        """Give signs of life and tell what is new from now on, from a thread of its own."""
        if self._manager is not None:
            args = (self._manager,)
            threading.Thread(target=self._keep_telling, args=args, name="notify", daemon=True).start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def ready(self) -> None:
        """The process does its work from now on."""
        self._enter(Phase.READY)

    def stopping(self, *, ends_at: float) -> None:
        """The process ends, by that time of the clock at the latest; until then it counts as alive."""
        self._ends_at = ends_at
        self._enter(Phase.STOPPING)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        if self._manager is not None:
            self._tell(self._manager)

    def _keep_telling(self, manager: ServiceManager) -> None:
        self._tell(manager)
        while not self._closed.wait(manager.look_seconds):
            self._tell(manager)

    def _tell(self, manager: ServiceManager) -> None:
        """Send what is new and the sign of life that is due; the next look repeats what was not heard."""
        with self._lock:
            now = self._clock()
            report = Report(phase=self._phase, status=self._status())
            news = report.lines_after(self._told, seconds_to_end=self._ends_at - now)
            signs = self._signs_of_life(manager, now) if now >= self._sign_due else []
            if not (news or signs) or not self._is_sent(manager, news + signs):
                return
            self._told = report
            if signs:
                self._sign_due = now + manager.sign_seconds

    def _signs_of_life(self, manager: ServiceManager, now: float) -> list[str]:
        if self._phase is Phase.STARTING:
            sign = _extension(START_EXTENSION_SECONDS)
        elif manager.watchdog_seconds:
            sign = "WATCHDOG=1"
        else:
            return []
        return [sign] if now < self._ends_at and self._is_alive() else []

    def _is_alive(self) -> bool:
        """Whether the process is to live on; why not is logged now, since the dead can't."""
        reason = self._why_dead()
        if reason is not None and self._was_alive:
            log.error(Event.LIVENESS_LOST, f"No more signs of life for the service manager: {reason}")
        self._was_alive = reason is None
        return self._was_alive

    def _is_sent(self, manager: ServiceManager, lines: list[str]) -> bool:
        """Whether it was taken. That it was not is logged once, until it is again: no reason to end work."""
        try:
            manager.send(lines)
        except OSError as error:
            if self._is_heard:
                words = f"The service manager can't be told {lines[0]}: {error.strerror or error}"
                log.warning(Event.NOTIFY_FAILED, words)
            self._is_heard = False
            return False
        self._is_heard = True
        return True
