"""Keep a stream open: open it, notice its end or its silence, and open it again.

A stream that delivers nothing may be idle or dead, and no error shows the difference. After some time it is
closed and opened again on a new connection. No wait for Google's client is unlimited, and a request to stop
ends every wait.

During a long pause of the intake no stream is open: the client gives held messages up after their longest
lease, so each of them would come again and again, and use up its delivery attempts.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING, NoReturn

from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from daemon.handling.circuit_breaker import CircuitBreaker
    from daemon.lifecycle.drain import Drain
    from daemon.lifecycle.liveness import Liveness
    from daemon.lifecycle.stoppable_wait import StoppableWait
    from daemon.subscription.stream import Stream

#: The time limit for opening a stream, and for closing a quiet one.
MAX_SECONDS = 30.0
REOPEN_BACKOFF = Backoff(low_seconds=0.5, first_seconds=2.0, max_seconds=30.0)
#: A stream that lived longer than this does not count as a failure to open one.
LONG_LIVED_SECONDS = 60.0
#: After this many failures in a row to open or to close a stream, only a restart may help.
MAX_FAILURES = 3
#: How often the supervisor checks if the stream is quiet.
CHECK_SECONDS = 1.0
#: A longer pause of the intake closes the stream until it ends.
LONG_PAUSE_SECONDS = 60.0


class Quiet:
    """Measures for how long the stream has delivered nothing although it could.

    Args:
        drain: Counts the deliveries.
        breaker: While it is open, the stream is not expected to deliver anything.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self, *, drain: Drain, breaker: CircuitBreaker, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._drain = drain
        self._breaker = breaker
        self._clock = clock
        self._since = clock()

    def restart(self) -> None:
        """Count from now on."""
        self._since = self._clock()

    def seconds(self) -> float:
        """Return the seconds without a delivery. Call it often: it notices a pause only when called."""
        if self._breaker.is_open:
            self.restart()
        return self.closing_seconds()

    def closing_seconds(self) -> float:
        """Return the seconds without a delivery, a pause included: a stream that is closing has to end."""
        return min(self._drain.quiet_seconds(), self._clock() - self._since)


class StreamSupervisor:
    """Keeps one stream open. Only the main thread calls its methods, except `is_open`.

    Args:
        open_stream: Connects and opens a stream. It may block; it runs in a thread of its own.
        on_open: Called for each opened stream with the reason for opening it: `start`, or why there is none
            any more: `ended`, `idle` or `paused`.
        waiter: How the main thread waits.
        quiet: Measures the time without a delivery.
        breaker: While it is open for long, no stream is.
        liveness: Gets a failure when streams repeatedly can't be opened or closed.
        idle_seconds: A stream that delivers nothing for this long is opened again.
        max_seconds: The time limit for opening and for closing.
    """

    def __init__(
        self,
        *,
        open_stream: Callable[[], Stream],
        on_open: Callable[[str], None],
        waiter: StoppableWait,
        quiet: Quiet,
        breaker: CircuitBreaker,
        liveness: Liveness,
        idle_seconds: float,
        max_seconds: float = MAX_SECONDS,
        long_pause_seconds: float = LONG_PAUSE_SECONDS,
    ) -> None:
        self._open_stream = open_stream
        self._on_open = on_open
        self._waiter = waiter
        self._quiet = quiet
        self._breaker = breaker
        self._liveness = liveness
        self._idle_seconds = idle_seconds
        self._max_seconds = max_seconds
        self._long_pause_seconds = long_pause_seconds
        self._failures: Counter[str] = Counter()
        self._stream: Stream | None = None
        self._short_lives = 0

    @property
    def is_open(self) -> bool:
        """True while messages may arrive."""
        stream = self._stream  # read once: the main thread may replace it
        return stream is not None and stream.is_open

    def unsent_seconds(self) -> float:
        """Return the age of the oldest ack, nack or new deadline that was not sent yet, or 0."""
        stream = self._stream
        return 0.0 if stream is None else stream.unsent_seconds()

    def keep_open(self) -> NoReturn:
        """Keep a stream open.

        Raises:
            StopRequested: A stop was requested.
            BackendRefused: The subscription is missing or forbidden.
        """
        reason = "start"
        while True:
            if self._is_pause_long():
                reason = "paused"
                self._waiter.wait_until(lambda: not self._breaker.is_open, math.inf)
            started = time.monotonic()
            try:
                stream = self._open()
                metrics.STREAMS_OPENED.labels(reason).inc()
                self._on_open(reason)
                reason = self._wait_until_useless(stream)
            except BackendUnavailable as error:
                reason = "ended"
                self._stream = None
                log.warning(Event.STREAM_ENDED, str(error), backend="pubsub")
                is_long_lived = time.monotonic() - started > LONG_LIVED_SECONDS
                self._short_lives = 1 if is_long_lived else self._short_lives + 1
                self._waiter.sleep(REOPEN_BACKOFF.delay_seconds(self._short_lives))
            else:
                self._close(stream)

    def cancel(self) -> None:
        """Start to end the stream, if there is one."""
        if self._stream is not None:
            self._stream.cancel()

    def wait_until_ended(self, seconds: float) -> bool:
        """Wait until the cancelled stream has nacked waiting messages and sent its acks."""
        return self._stream is None or self._stream.wait_until_ended(seconds)

    def _open(self) -> Stream:
        """Open a stream in a thread of its own, because a dead network is noticed late.

        Raises:
            BackendUnavailable: It was not opened. That Pub/Sub is unavailable or refuses does not count as a
                failure of this process; a timeout and any other error do.
        """
        log.debug(Event.STREAM_OPENING, "Opening a stream")
        opening = self._waiter.start(self._open_stream, name="opening")
        is_done = False
        try:
            is_done = self._waiter.wait_until(opening.done, self._max_seconds)
        finally:
            if not is_done:
                opening.add_done_callback(_cancel_late_stream)
        try:
            stream = opening.result() if is_done else None
        except (BackendRefused, BackendUnavailable):
            raise
        except Exception as error:
            self._record("opening", failed=True)
            raise BackendUnavailable("pubsub", repr(error)[:300]) from error
        self._record("opening", failed=stream is None)
        if stream is None:  # even if it has opened since, because then it is cancelled
            raise BackendUnavailable("pubsub", f"no stream was open after {self._max_seconds:g} s")
        self._stream = stream
        stream.on_end(self._waiter.wake)
        self._quiet.restart()
        return stream

    def _is_pause_long(self) -> bool:
        return self._breaker.open_seconds() >= self._long_pause_seconds

    def _wait_until_useless(self, stream: Stream) -> str:
        """Return why the stream has to be closed: `idle` or `paused`.

        Raises:
            BackendRefused: It ended with a refusal.
            BackendUnavailable: It ended in any other way.
        """
        check_seconds = min(CHECK_SECONDS, self._idle_seconds / 2, self._long_pause_seconds / 2)
        while not self._waiter.wait_until(lambda: stream.has_ended, check_seconds):
            if self._quiet.seconds() >= self._idle_seconds:
                log.debug(Event.STREAM_ENDED, f"No message for {self._idle_seconds:g} s")
                return "idle"
            if self._is_pause_long():
                log.info(Event.STREAM_ENDED, "The intake is paused for long: no stream until it goes on")
                self._breaker.give_back()
                return "paused"
            if not self._breaker.is_open:
                stream.renew_if_blocked()
        self._stream = None
        raise stream.end_error()

    def _close(self, stream: Stream) -> None:
        """Close a stream. Deliveries in progress may finish; their time does not count."""
        stream.cancel()
        self._quiet.restart()
        self._waiter.wait_until(
            lambda: stream.has_ended or self._quiet.closing_seconds() >= self._max_seconds, math.inf
        )
        self._record("closing", failed=not stream.has_ended)
        if not stream.has_ended:
            message = f"A stream did not close within {self._max_seconds:g} s and was disconnected"
            log.warning(Event.STREAM_ENDED, message, backend="pubsub")
            stream.disconnect()
        self._stream = None

    def _record(self, what: str, *, failed: bool) -> None:
        """Count failures in a row. Too many make `/livez` fail until one attempt succeeds."""
        self._failures[what] = self._failures[what] + 1 if failed else 0
        if self._failures[what] >= MAX_FAILURES:
            self._liveness.fail(f"stream {what}", f"failed {self._failures[what]} times in a row")
        else:
            self._liveness.clear(f"stream {what}")


def _cancel_late_stream(opening: Future[Stream]) -> None:
    """Close a stream that was opened too late."""
    if opening.exception() is None:
        opening.result().cancel()
