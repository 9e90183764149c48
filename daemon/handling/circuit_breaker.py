"""The intake gate: while a backend is away no run is read, so that no delivery is used up for nothing.

Handler threads wait at the gate. Once all of them do, flow control stops the stream by itself.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Self

from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FAILURES_TO_PAUSE = 5
PROBE_SECONDS = 15.0
#: Each wait for the next probe is up to this share shorter or longer: workers must not ask in step.
PROBE_JITTER = 0.2


class CircuitBreaker:
    """Closes after failures in a row of one backend, and opens when none is away any more.

    Shared by all threads. What is counted is the caller's choice: only failures that are not one message's
    fault. As a context manager it runs the thread that asks whether the backends are back.

    Args:
        probes: By backend: asks it something small; raises BackendUnavailable while it is away.
        probe_seconds: How often a backend that is away is asked.
        on_tick: Called by the probing thread at least every two such times, and the time the probes take.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        *,
        probes: Mapping[str, Callable[[], None]],
        probe_seconds: float = PROBE_SECONDS,
        on_tick: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probes = probes
        self._probe_seconds = probe_seconds
        self._on_tick = on_tick
        self._clock = clock
        self._changed = threading.Condition()
        self._in_a_row: Counter[str] = Counter()
        self._away: list[str] = []
        self._paused_at = 0.0
        self._is_closed = False
        self._thread = threading.Thread(target=self._ask_again, name="intake", daemon=True)

    def __enter__(self) -> Self:
        """Start the probing thread."""
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """End it; a probe under way is not waited for."""
        self.close()

    @property
    def is_paused(self) -> bool:
        """Whether the gate is closed."""
        return bool(self._away)

    @property
    def backends_away(self) -> tuple[str, ...]:
        """The backends for which it is closed."""
        with self._changed:
            return tuple(self._away)

    def wait(self) -> bool:
        """Wait until the gate is open; False when the worker stops, and the message is to be given back."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or not self._away)
            return not self._is_closed

    def failed(self, backend: str) -> None:
        """The backend was unavailable. One that can't be asked whether it is back closes no gate."""
        with self._changed:
            if backend not in self._probes or backend in self._away:
                return
            self._in_a_row[backend] += 1
            if self._in_a_row[backend] < FAILURES_TO_PAUSE:
                return
            failures = self._in_a_row.pop(backend)
            self._pause(backend)
        log.warning(
            Event.INTAKE_PAUSED,
            f"No run is read until {backend} answers again",
            backend=backend,
            failures=failures,
        )

    def succeeded(self, backend: str) -> None:
        """The backend answered."""
        with self._changed:
            self._in_a_row.pop(backend, None)

    def close(self) -> None:
        """The worker stops: whoever waits is let go and told so. May be called again."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _pause(self, backend: str) -> None:
        if not self._away:
            self._paused_at = self._clock()
        self._away.append(backend)
        metrics.INTAKE_PAUSED.labels(backend).set(1)
        self._changed.notify_all()

    def _ask_again(self) -> None:
        """The probing thread: while backends are away, asks each from time to time."""
        while not self._is_closed:
            self._on_tick()
            for backend in self._due():
                if self._is_back(backend):
                    self._resume(backend)

    def _due(self) -> tuple[str, ...]:
        """The backends that are away, a pause after they went; none at least every two pauses."""
        jitter = full_jitter_seconds(low=1 - PROBE_JITTER, high=1 + PROBE_JITTER)
        pause = jitter * self._probe_seconds
        with self._changed:
            self._changed.wait_for(lambda: self._away or self._is_closed, pause)
            if self._away:
                self._changed.wait_for(lambda: self._is_closed, pause)
            return () if self._is_closed else tuple(self._away)

    def _is_back(self, backend: str) -> bool:
        try:
            self._probes[backend]()
        except BackendUnavailable as error:
            log.debug(Event.BACKEND_UNAVAILABLE, f"Still away: {error}", backend=backend)
            return False
        except BackendRefused:
            pass  # it answers; what it refuses is for each message to find out
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not keep the gate closed for ever
            log.error(Event.INTERNAL_ERROR, f"Probing {backend} failed: {error!r:.300}", exc_info=error)
        return True

    def _resume(self, backend: str) -> None:
        with self._changed:
            self._away.remove(backend)
            metrics.INTAKE_PAUSED.labels(backend).set(0)
            if self._away:
                return
            paused_seconds = self._clock() - self._paused_at
            self._changed.notify_all()
        log.info(
            Event.INTAKE_RESUMED,
            f"{backend} answers again",
            backend=backend,
            pausedSeconds=round(paused_seconds, 3),
        )
