"""The circuit breaker: while a backend is unavailable no run is read, so no delivery attempt is wasted.

Handler threads wait at the open breaker. When all of them wait, flow control stops the stream by itself.
Logs, metrics and `/readyz` call an open breaker a pause of the intake.
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

FAILURES_TO_OPEN = 5
PROBE_SECONDS = 15.0
#: Each pause between probes varies by this share, so that workers do not probe at the same time.
PROBE_JITTER = 0.2


class CircuitBreaker:
    """Opens after failures in a row of one backend; closes when every backend answers a probe again.

    Shared by all threads. Callers record only failures that do not depend on one message. As a context
    manager it runs the thread that probes.

    Args:
        probes: By backend: a small call that raises BackendUnavailable while the backend is unavailable.
        probe_seconds: The pause between two probes of a backend.
        on_tick: Called by the probing thread at least every two pauses, plus the time the probes take.
        clock: A monotonic clock, in seconds.
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
        self._failures: Counter[str] = Counter()
        self._unavailable: list[str] = []
        self._opened_at = 0.0
        self._is_stopped = False
        self._thread = threading.Thread(target=self._probe_until_stopped, name="intake", daemon=True)

    def __enter__(self) -> Self:
        """Start the probing thread."""
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Stop the probing thread without waiting for a probe in progress."""
        self.stop()

    @property
    def is_open(self) -> bool:
        """True while a backend is unavailable and work has to wait."""
        return bool(self._unavailable)

    @property
    def unavailable_backends(self) -> tuple[str, ...]:
        """The backends that keep the breaker open."""
        with self._changed:
            return tuple(self._unavailable)

    def wait_until_closed(self) -> bool:
        """Wait while the breaker is open. Return False if the worker stops and must nack the message."""
        with self._changed:
            while self._unavailable and not self._is_stopped:
                self._changed.wait()
            return not self._is_stopped

    def record_failure(self, backend: str) -> None:
        """Count a failure. A backend without a probe is ignored, because nothing would close the breaker."""
        with self._changed:
            if backend not in self._probes or backend in self._unavailable:
                return
            self._failures[backend] += 1
            if self._failures[backend] < FAILURES_TO_OPEN:
                return
            failures = self._failures.pop(backend)
            if not self._unavailable:
                self._opened_at = self._clock()
            self._unavailable.append(backend)
            metrics.INTAKE_PAUSED.labels(backend).set(1)
            self._changed.notify_all()
        log.warning(
            Event.INTAKE_PAUSED,
            f"No run is read until {backend} answers again",
            backend=backend,
            failures=failures,
        )

    def record_success(self, backend: str) -> None:
        """Reset the count of failures in a row."""
        with self._changed:
            self._failures.pop(backend, None)

    def stop(self) -> None:
        """Release all waiting threads, because the worker stops. May be called again."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _probe_until_stopped(self) -> None:
        while not self._is_stopped:
            self._on_tick()
            for backend in self._wait_for_next_probes():
                if self._answers(backend):
                    self._resume(backend)

    def _wait_for_next_probes(self) -> tuple[str, ...]:
        """Wait for one pause, at most for two, then return the backends to probe."""
        pause = self._probe_seconds * full_jitter_seconds(low=1 - PROBE_JITTER, high=1 + PROBE_JITTER)
        with self._changed:
            self._changed.wait_for(lambda: self._unavailable or self._is_stopped, pause)
            if self._unavailable:
                self._changed.wait_for(lambda: self._is_stopped, pause)
            return () if self._is_stopped else tuple(self._unavailable)

    def _answers(self, backend: str) -> bool:
        try:
            self._probes[backend]()
        except BackendUnavailable as error:
            log.debug(Event.BACKEND_UNAVAILABLE, f"Still unavailable: {error}", backend=backend)
            return False
        except BackendRefused:
            pass  # it answers; each message gets the refusal itself
        except Exception as error:  # noqa: BLE001 - our own defect must not keep the breaker open forever
            log.error(Event.INTERNAL_ERROR, f"Probing {backend} failed: {error!r:.300}", exc_info=error)
        return True

    def _resume(self, backend: str) -> None:
        with self._changed:
            self._unavailable.remove(backend)
            metrics.INTAKE_PAUSED.labels(backend).set(0)
            if self._unavailable:
                return
            paused_seconds = self._clock() - self._opened_at
            self._changed.notify_all()
        log.info(
            Event.INTAKE_RESUMED,
            f"{backend} answers again",
            backend=backend,
            pausedSeconds=round(paused_seconds, 3),
        )
