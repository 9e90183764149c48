"""This daemon as one of a fleet: it pauses when an operator pauses all of them, and shows that it is there.

It reads the pause every `LOOK_SECONDS` and sends a heartbeat after every second read: four reads and two
writes a minute.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from worker_chart_export.backends.firestore import delete_document
from worker_chart_export.errors import OPERATOR, BackendRefused, BackendUnavailable, WorkerError
from worker_chart_export.fleet.heartbeat import WORKERS, WorkerState, old_workers, send_heartbeat
from worker_chart_export.fleet.pause import read_pause
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from daemon.handling.circuit_breaker import CircuitBreaker
    from worker_chart_export.fleet.heartbeat import WorkerStatus
    from worker_chart_export.fleet.pause import FleetPause

#: Every daemon sees a pause within 30 s, also if a read takes its whole time.
LOOK_SECONDS = 15.0
READ_SECONDS = 5.0
LOOKS_PER_HEARTBEAT = 2
#: A daemon is not ready until its stream is open. The first heartbeat waits for that, because it stands 30 s.
FIRST_HEARTBEAT_SECONDS = 5.0
READY_POLL_SECONDS = 0.05
#: At the start and at the end the process waits no longer.
LEAVE_SECONDS = 1.0


class FleetMember:
    """Follows the pause of the fleet, and sends heartbeats. Its thread also sends them during a drain.

    Args:
        client: A Firestore client.
        breaker: It is open while the fleet is paused.
        owner: The name of this daemon in leases.
        status: Returns the status of this daemon: `status(started_at, now)`.
        on_tick: Called before each read.
        look_seconds: The time between two reads.
    """

    def __init__(
        self,
        *,
        client: Any,
        breaker: CircuitBreaker,
        owner: str,
        status: Callable[[datetime, datetime], WorkerStatus],
        on_tick: Callable[[], None] = lambda: None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._client = client
        self._breaker = breaker
        self._owner = owner
        self._status = status
        self._on_tick = on_tick
        self._look_seconds = look_seconds
        self._looking = threading.Lock()
        self._pause: FleetPause | None = None
        self._started_at: datetime | None = None
        self._read_at: datetime | None = None
        self._failing: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    def look_first(self) -> None:
        """Read the pause before any work. While Firestore is unavailable the intake is paused for that."""
        if (reason := self._why_unknown()) is not None:
            self._breaker.pause("firestore", reason, probe=self._why_unknown)

    def start(self) -> None:
        """Read the pause and send heartbeats from now on."""
        self._thread.start()

    def leave(self, *, within_seconds: float) -> None:
        """Stop, and delete the heartbeat if that takes at most `LEAVE_SECONDS`. It expires in any case."""
        self._stopping.set()
        seconds = min(LEAVE_SECONDS, within_seconds)
        if self._read_at is None or seconds <= 0:
            return
        if self._thread.is_alive():
            self._thread.join(seconds / 2)
            if self._thread.is_alive():
                return  # it may be about to write the document again
        try:
            delete_document(self._client, WORKERS, self._owner, timeout_seconds=seconds / 2)
        except WorkerError as error:
            log.debug(
                Event.BACKEND_UNAVAILABLE, f"The heartbeat was not deleted: {error}", backend="firestore"
            )

    def _why_unknown(self) -> str | None:
        """Read the pause for the first time. Return why it is not known, or None."""
        try:
            self._look()
        except BackendUnavailable as error:
            return str(error)
        except BackendRefused as error:
            log.warning(Event.BACKEND_REFUSED, f"The pause of the fleet can't be read: {error}")
        return None

    def _run(self) -> None:
        self._safely(self._forget_old)
        self._safely(self._await_stream)
        while True:
            self._safely(self._send_heartbeat)
            for _ in range(LOOKS_PER_HEARTBEAT):
                if self._stopping.wait(self._look_seconds):
                    return
                self._on_tick()
                self._safely(self._look)

    def _await_stream(self) -> None:
        """Wait a moment while the daemon is not ready yet."""
        end = time.monotonic() + FIRST_HEARTBEAT_SECONDS
        while time.monotonic() < end and self._is_not_ready():
            if self._stopping.wait(READY_POLL_SECONDS):
                return

    def _is_not_ready(self) -> bool:
        if self._started_at is None or self._read_at is None:
            return False  # no heartbeat is sent
        return self._status(self._started_at, self._read_at).state == WorkerState.NOT_READY

    def _safely(self, action: Callable[[], None]) -> None:
        """Log an error, once for each outage. What was known before stays true meanwhile."""
        name = action.__name__
        try:
            action()
        except (BackendUnavailable, BackendRefused) as error:
            if name not in self._failing:
                log.warning(Event.BACKEND_UNAVAILABLE, f"Following the fleet: {error}", backend="firestore")
            self._failing.add(name)
        except Exception as error:  # noqa: BLE001 - without this thread no pause is seen any more
            log.error(Event.INTERNAL_ERROR, f"Following the fleet failed: {error!r:.300}", exc_info=error)
        else:
            self._failing.discard(name)

    def _look(self) -> None:
        """Read the pause, and pause or resume the intake.

        Raises:
            BackendUnavailable: Firestore is unavailable. What was known before stays.
            BackendRefused: Firestore refuses. What was known before stays.
        """
        with self._looking:
            found = read_pause(self._client, timeout_seconds=READ_SECONDS)
            self._read_at = found.read_time
            self._started_at = self._started_at or found.read_time
            if found.pause != self._pause:
                self._follow(found.pause)

    def _follow(self, pause: FleetPause | None) -> None:
        self._pause = pause
        metrics.show_fleet_pause(None if pause is None else (pause.operator, pause.reason))
        if pause is None:
            self._breaker.resume(OPERATOR)
        else:
            # Only this thread ends the pause, so there is nothing to probe.
            self._breaker.pause(OPERATOR, str(pause), probe=lambda: str(pause), probe_seconds=math.inf)

    def _send_heartbeat(self) -> None:
        if self._started_at is not None and self._read_at is not None:
            send_heartbeat(self._client, self._status(self._started_at, self._read_at))

    def _forget_old(self) -> None:
        """Delete the heartbeats of daemons that were killed long ago."""
        if self._read_at is None:
            return
        for owner in old_workers(self._client, now=self._read_at):
            delete_document(self._client, WORKERS, owner)
