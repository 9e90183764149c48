"""Keeping a stream open: opening it, noticing its end or its silence, and opening it again.

A stream that brings nothing may be idle or dead, and no error tells which: after a while it is closed and
opened anew on a connection of its own. Nothing here waits for Google's client without an end, and a request
to stop ends each wait.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING, NoReturn

from worker_chart_export.errors import BackendRefused, BackendUnavailable
from worker_chart_export.observability import metrics
from worker_chart_export.observability.logs import Event, log
from worker_chart_export.timing import full_jitter_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from daemon.handling.circuit_breaker import CircuitBreaker
    from daemon.lifecycle.drain import Drain
    from daemon.lifecycle.liveness import Liveness
    from daemon.lifecycle.stoppable_wait import StoppableWait
    from daemon.subscription.stream import Stream

#: How long a stream may take to open, and a quiet one to close.
MAX_SECONDS = 30.0
MAX_PAUSE_SECONDS = 30.0
#: A stream that lasted so long was no failure to open one.
LONG_LIVED_SECONDS = 60.0
#: So many failures in a row to open or to close a stream, and only a restart may help.
MAX_FAILURES = 3
#: How often it is looked whether the stream is quiet.
LOOK_SECONDS = 1.0


class Quiet:
    """For how long the stream brought nothing, though it could have.

    Args:
        drain: Knows the deliveries.
        intake: While it is paused the stream is not expected to bring anything.
        clock: Seconds that never go back.
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
        """Seconds without a delivery; call it often, since a pause of the intake is noticed here only."""
        if self._breaker.is_paused:
            self.restart()
        return min(self._drain.quiet_seconds(), self._clock() - self._since)


class StreamSupervisor:
    """Keeps one stream open. Its methods belong to the main thread, but for `is_open`.

    Args:
        open_stream: Connects and opens a stream; may block, and is called in a thread of its own.
        on_open: Told of each stream that was opened, with the reason why it had to be: `start`, `ended`
            or `idle`.
        wakeup: How the main thread waits.
        quiet: Knows for how long nothing came.
        liveness: Told when the stream can't be opened or closed again and again.
        idle_seconds: A stream is opened anew after so long without a delivery.
        most_seconds: How long opening and closing may take.
    """

    def __init__(
        self,
        *,
        open_stream: Callable[[], Stream],
        on_open: Callable[[str], None],
        waiter: StoppableWait,
        quiet: Quiet,
        liveness: Liveness,
        idle_seconds: float,
        most_seconds: float = MAX_SECONDS,
    ) -> None:
        self._open_stream = open_stream
        self._on_open = on_open
        self._waiter = waiter
        self._quiet = quiet
        self._liveness = liveness
        self._idle_seconds = idle_seconds
        self._most_seconds = most_seconds
        self._in_a_row: Counter[str] = Counter()
        self._stream: Stream | None = None
        self._short_lives = 0

    @property
    def is_open(self) -> bool:
        """Whether messages may come."""
        stream = self._stream  # read once: the main thread may let go of it
        return stream is not None and stream.is_open

    def keep(self) -> NoReturn:
        """Keep a stream open.

        Raises:
            StopRequested: Somebody asked for a stop.
            BackendRefused: The subscription is missing or forbidden.
        """
        reason = "start"
        while True:
            started = time.monotonic()
            try:
                stream = self._open()
                metrics.STREAMS_OPENED.labels(reason).inc()
                self._on_open(reason)
                self._watch(stream)
            except BackendUnavailable as error:
                reason = "ended"
                self._stream = None
                log.warning(Event.STREAM_ENDED, str(error), backend="pubsub")
                self._pause(lived_seconds=time.monotonic() - started)
            else:
                reason = "idle"
                self._close(stream)

    def cancel(self) -> None:
        """Begin to end the stream, if there is one."""
        if self._stream is not None:
            self._stream.cancel()

    def wait_until_over(self, seconds: float) -> bool:
        """Wait until the cancelled stream has nacked what never started and sent its acks."""
        return self._stream is None or self._stream.wait_until_over(seconds)

    def _open(self) -> Stream:
        """Open a stream in a thread of its own: a black hole takes long to be noticed."""
        log.debug(Event.STREAM_OPENING, "Opening a stream")
        self._stream = self._wait_for(self._waiter.start(self._open_stream, name="opening"))
        self._stream.on_end(self._waiter.ring)
        self._note("opening", failed=False)
        self._quiet.restart()
        return self._stream

    def _wait_for(self, opening: Future[Stream]) -> Stream:
        """The stream; that Pub/Sub is away or refuses does not count as a failure of this process."""
        came = False
        try:
            came = self._waiter.wait_until(opening.done, self._most_seconds)
        finally:
            if not came:
                opening.add_done_callback(_discard)  # it may come yet
        if not came:
            raise self._failed_to_open(f"no stream was open after {self._most_seconds:g} s")
        try:
            return opening.result()
        except (BackendRefused, BackendUnavailable):
            raise
        except Exception as error:
            raise self._failed_to_open(repr(error)[:300]) from error

    def _failed_to_open(self, words: str) -> BackendUnavailable:
        self._note("opening", failed=True)
        return BackendUnavailable("pubsub", words)

    def _watch(self, stream: Stream) -> None:
        """Return when the stream has been quiet for too long.

        Raises:
            BackendRefused: It ended with a refusal.
            BackendUnavailable: It ended otherwise.
        """
        look_seconds = min(LOOK_SECONDS, self._idle_seconds / 2)
        while not self._waiter.wait_until(lambda: stream.is_over, look_seconds):
            if self._quiet.seconds() >= self._idle_seconds:
                return
        self._stream = None
        raise stream.why_over()

    def _close(self, stream: Stream) -> None:
        """Close a quiet stream. A delivery that came just then is let finish; its time does not count."""
        log.debug(Event.STREAM_ENDED, f"Nothing came for {self._idle_seconds:g} s: opening another stream")
        stream.cancel()
        self._quiet.restart()
        self._waiter.wait_until(
            lambda: stream.is_over or self._quiet.seconds() >= self._most_seconds, math.inf
        )
        self._note("closing", failed=not stream.is_over)
        if not stream.is_over:
            words = f"A quiet stream did not close within {self._most_seconds:g} s and was cut off"
            log.warning(Event.STREAM_ENDED, words, backend="pubsub")
            stream.disconnect()
        self._stream = None

    def _pause(self, *, lived_seconds: float) -> None:
        self._short_lives = 1 if lived_seconds > LONG_LIVED_SECONDS else self._short_lives + 1
        most = min(MAX_PAUSE_SECONDS, 2.0 ** min(self._short_lives, 10))
        self._waiter.sleep(full_jitter_seconds(low=0.5, high=most))

    def _note(self, what: str, *, failed: bool) -> None:
        """Count failures in a row; too many make the process a dead one until it goes well again."""
        self._in_a_row[what] = self._in_a_row[what] + 1 if failed else 0
        if self._in_a_row[what] >= MAX_FAILURES:
            self._liveness.fail(f"stream {what}", f"failed {self._in_a_row[what]} times in a row")
        else:
            self._liveness.mend(f"stream {what}")


def _discard(opening: Future[Stream]) -> None:
    """A stream that comes when nobody waits for it any more is closed."""
    if opening.exception() is None:
        opening.result().cancel()
