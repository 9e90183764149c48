"""The circuit breaker: while a backend is unavailable no run is read, so no delivery attempt is wasted.

Anything else that makes new work pointless for a while, e.g. used-up accounts, opens it in the same way with
`pause`. Handler threads wait at the open breaker. When all of them wait, flow control stops the stream by
itself. Logs, metrics and `/readyz` call an open breaker a pause of the intake.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from worker_chart_export.errors import AccountsExhausted, BackendRefused, BackendUnavailable
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

FAILURES_TO_OPEN = 5
#: So long after a failure its backend is probed, unless it has answered since.
SUSPICION_SECONDS = 1.0
PROBE_SECONDS = 15.0
#: Each wait for the next probe is shorter by up to this share, so that workers do not probe at the same time.
PROBE_JITTER = 0.4
#: Why waiting messages are given back: the reason in the log and in the metrics.
SHUTDOWN, PAUSED = "shutdown", "paused"

#: Returns why the intake has to stay paused, or None when it may go on.
Probe = Callable[[], str | None]


@dataclass(slots=True, kw_only=True)
class _Pause:
    reason: str
    probe: Probe
    probe_seconds: float
    probe_at: float


class CircuitBreaker:
    """Pauses the intake of messages for named reasons, each until its probe finds none any more.

    Failures in a row of one backend pause it, or one failure and a failed probe. Callers record only failures
    that do not depend on one message. Shared by all threads. As a context manager it runs the thread that
    probes.

    Args:
        probes: By backend: a small call that raises BackendUnavailable while the backend is unavailable.
        probe_seconds: The longest wait between two probes of a backend.
        on_tick: Called by the probing thread at least every two waits, plus the time the probes take.
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
        self._probes = {backend: partial(_why_unavailable, call) for backend, call in probes.items()}
        self._probe_seconds = probe_seconds
        self._on_tick = on_tick
        self._clock = clock
        self._changed = threading.Condition()
        self._failures: Counter[str] = Counter()
        self._suspects: dict[str, float] = {}  # backends to probe although nothing is paused: when
        self._pauses: dict[str, _Pause] = {}
        self._opened_at = 0.0
        self._gives_back = False
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
        """True while the intake is paused and work has to wait."""
        return bool(self._pauses)

    @property
    def pauses(self) -> dict[str, str]:
        """Why the intake is paused: by name of the pause, e.g. `firestore`, its reason for a person."""
        with self._changed:
            return {name: pause.reason for name, pause in self._pauses.items()}

    def open_seconds(self) -> float:
        """Return for how long the intake has been paused, or 0."""
        with self._changed:
            return self._clock() - self._opened_at if self._pauses else 0.0

    def wait_until_closed(self) -> str | None:
        """Wait while the intake is paused. Return None, or why to give the message back."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pauses or self._gives_back or self._is_stopped)
            if self._is_stopped:
                return SHUTDOWN
            return PAUSED if self._pauses else None

    def give_back(self) -> None:
        """Let all waiting threads give their messages back, now and until the pause ends.

        Call it before the stream is closed: an open stream would deliver these messages again at once.
        """
        with self._changed:
            self._gives_back = bool(self._pauses)
            self._changed.notify_all()

    def pause(self, name: str, reason: str, *, probe: Probe, probe_seconds: float | None = None) -> None:
        """Pause the intake until `probe` returns None. A pause of this name only gets the new reason.

        Args:
            name: The name in logs and metrics, e.g. `firestore` or `accounts`.
            reason: Why, for a person; `/readyz` shows it. Each probe that does not return None replaces it.
            probe: Called in the probing thread. An error that it raises ends the pause and is logged.
            probe_seconds: The longest wait between two probes; by default as for backends.
        """
        with self._changed:
            if name in self._pauses:
                self._pauses[name].reason = reason
                return
            seconds = self._probe_seconds if probe_seconds is None else probe_seconds
            if not self._pauses:
                self._opened_at = self._clock()
            self._pauses[name] = _Pause(
                reason=reason, probe=probe, probe_seconds=seconds, probe_at=self._next_probe_at(seconds)
            )
            failures = self._failures.pop(name, None)
            self._suspects.pop(name, None)
            metrics.INTAKE_PAUSED.labels(name).set(1)
            self._changed.notify_all()
        log.warning(
            Event.INTAKE_PAUSED, f"No run is read: {reason}", backend=name, reason=reason, failures=failures
        )

    def resume(self, name: str) -> None:
        """End the pause of this name, if there is one. Work goes on when no other pause is left."""
        with self._changed:
            if self._pauses.pop(name, None) is None:
                return
            metrics.INTAKE_PAUSED.labels(name).set(0)
            if self._pauses:
                return
            paused_seconds = self._clock() - self._opened_at
            self._gives_back = False
            self._changed.notify_all()
        log.info(
            Event.INTAKE_RESUMED,
            "Runs are read again",
            backend=name,
            pausedSeconds=round(paused_seconds, 3),
        )

    def record_failure(self, error: BackendUnavailable) -> None:
        """Count a failure. After the first one the probing thread asks the backend soon.

        A single `AccountsExhausted` pauses the intake, unless it is only for some charts.

        A backend without a probe is ignored, because nothing would end the pause.
        """
        backend = error.backend
        with self._changed:
            if backend not in self._probes or backend in self._pauses:
                return
            is_exhausted = isinstance(error, AccountsExhausted)
            if isinstance(error, AccountsExhausted) and not error.is_for_all:
                return
            self._failures[backend] += 1
            if self._failures[backend] < FAILURES_TO_OPEN and not is_exhausted:
                self._suspects.setdefault(backend, self._clock() + SUSPICION_SECONDS)
                self._changed.notify_all()
                return
        self.pause(backend, str(error), probe=self._probes[backend])

    def probe_now(self, backend: str) -> None:
        """Make the probing thread ask this backend at once, and pause the intake if the probe fails."""
        with self._changed:
            self._suspects[backend] = self._clock()
            self._changed.notify_all()

    def record_success(self, backend: str) -> None:
        """Reset the count of failures in a row."""
        with self._changed:
            self._failures.pop(backend, None)
            self._suspects.pop(backend, None)

    def stop(self) -> None:
        """Release all waiting threads, because the worker stops. May be called again."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _probe_until_stopped(self) -> None:
        while not self._is_stopped:
            self._on_tick()
            suspects, due = self._wait_for_next_probes()
            for backend in suspects:
                if reason := _result(backend, self._probes[backend]):
                    self.pause(backend, reason, probe=self._probes[backend])
            for name, pause in due.items():
                self._look_again(name, pause)

    def _wait_for_next_probes(self) -> tuple[list[str], dict[str, _Pause]]:
        """Wait until there is something to probe, at most for one wait. Return suspects and due pauses."""
        with self._changed:
            longest = self._clock() + self._probe_seconds
            while not self._is_stopped:
                ends = [pause.probe_at for pause in self._pauses.values()]
                seconds = min([longest, *self._suspects.values(), *ends]) - self._clock()
                if seconds <= 0:
                    break
                self._changed.wait(seconds)
            if self._is_stopped:
                return [], {}
            now = self._clock()
            suspects = [backend for backend, at in self._suspects.items() if at <= now]
            for backend in suspects:
                del self._suspects[backend]
            return suspects, {name: pause for name, pause in self._pauses.items() if pause.probe_at <= now}

    def _look_again(self, name: str, pause: _Pause) -> None:
        reason = _result(name, pause.probe)
        if reason is None:
            self.resume(name)
            return
        log.debug(Event.BACKEND_UNAVAILABLE, f"Still paused: {reason}", backend=name)
        with self._changed:
            pause.reason = reason
            pause.probe_at = self._next_probe_at(pause.probe_seconds)

    def _next_probe_at(self, seconds: float) -> float:
        return self._clock() + seconds * full_jitter_seconds(low=1 - PROBE_JITTER, high=1.0)


def _why_unavailable(call: Callable[[], None]) -> str | None:
    try:
        call()
    except BackendUnavailable as error:
        return str(error)
    except BackendRefused:
        pass  # it answers; each message gets the refusal itself
    return None


def _result(name: str, probe: Probe) -> str | None:
    try:
        return probe()
    except Exception as error:  # noqa: BLE001 - our own defect must not keep the intake paused forever
        log.error(Event.INTERNAL_ERROR, f"Probing {name} failed: {error!r:.300}", exc_info=error)
        return None
