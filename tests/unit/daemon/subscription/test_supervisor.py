"""The stream supervisor: opening, ends, silence, and when the process counts as dead."""

from __future__ import annotations

import threading
import time

import pytest

from daemon.handling.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from daemon.lifecycle.drain import Drain
from daemon.lifecycle.liveness import Liveness
from daemon.lifecycle.stoppable_wait import StoppableWait, StopRequested
from daemon.subscription import supervisor
from daemon.subscription.supervisor import Quiet, StreamSupervisor
from tests.support.fakes import HandClock
from worker_chart_export import timing
from worker_chart_export.errors import BackendRefused, BackendUnavailable

LONG = 3600.0


class FakeStream:
    """A stream that ends when cancelled, unless it is `stuck`, or when `end` is called."""

    def __init__(self, *, stuck=False):
        self.stuck = stuck
        self.error = BackendUnavailable("pubsub", "it ended")
        self.was_cancelled = threading.Event()
        self.was_cut = False
        self._over = threading.Event()
        self._on_end = []

    @property
    def is_open(self):
        """Return whether messages can arrive."""
        return not (self.has_ended or self.was_cancelled.is_set())

    @property
    def has_ended(self):
        """Return whether it has ended."""
        return self._over.is_set()

    def on_end(self, callback):
        """Set the callback of the end."""
        self._on_end.append(callback)

    def end(self):
        """End now."""
        self._over.set()
        for callback in self._on_end:
            callback()

    def cancel(self):
        """End, unless stuck."""
        self.was_cancelled.set()
        if not self.stuck:
            self.end()

    def wait_until_ended(self, seconds):
        """Return whether it ended in time."""
        return self._over.wait(seconds)

    def end_error(self):
        """Return the error that ended it."""
        return self.error

    def renew_if_blocked(self):
        """Do nothing."""

    def disconnect(self):
        """Note the call."""
        self.was_cut = True


class SupervisorUnderTest:
    """A supervisor of scripted streams; `run` keeps streams open until the script has ended."""

    def __init__(self, *, idle_seconds=LONG, max_seconds=LONG, long_pause_seconds=LONG):
        self.script = []
        self.opened = []
        self.reasons = []
        self.drain = Drain()
        self.breaker = CircuitBreaker(probes={"firestore": lambda: None}, probe_seconds=LONG)
        self.waiter = StoppableWait()
        self.liveness = Liveness()
        self.supervisor = StreamSupervisor(
            open_stream=self._open,
            on_open=self.reasons.append,
            waiter=self.waiter,
            quiet=Quiet(drain=self.drain, breaker=self.breaker),
            breaker=self.breaker,
            liveness=self.liveness,
            idle_seconds=idle_seconds,
            max_seconds=max_seconds,
            long_pause_seconds=long_pause_seconds,
        )

    def _open(self):
        """Return the script's next stream, raise its error, or call its function."""
        if not self.script:
            self.waiter.request_stop("the script is used up")
            raise BackendUnavailable("pubsub", "the script is used up")
        found = self.script.pop(0)
        if isinstance(found, Exception):
            raise found
        stream = found if isinstance(found, FakeStream) else found()
        self.opened.append(stream)
        return stream

    def run(self, *script):
        """Keep streams open until the script has ended."""
        self.script = list(script)
        with pytest.raises(StopRequested):
            self.supervisor.keep_open()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    """Shorten the pauses between two attempts to open a stream."""
    monkeypatch.setattr(timing, "full_jitter_seconds", lambda **_: 0.0)


def _ended():
    stream = FakeStream()
    stream.end()
    return stream


def _fails_to_open():
    raise RuntimeError("no stream")


def test_the_first_stream_is_a_start():
    """The first stream counts as a start and is open until it ends."""
    tested, stream = SupervisorUnderTest(), FakeStream()
    assert not tested.supervisor.is_open
    threading.Timer(0.05, tested.waiter.request_stop, ("enough",)).start()
    tested.run(stream)
    assert (tested.reasons, tested.supervisor.is_open) == (["start"], True)
    tested.supervisor.cancel()
    assert (tested.supervisor.is_open, tested.supervisor.wait_until_ended(0)) == (False, True)


def test_without_a_stream_there_is_nothing_to_end():
    """A stop before the first stream has nothing to close."""
    watched = SupervisorUnderTest().supervisor
    watched.cancel()
    assert watched.wait_until_ended(0)


def test_a_stream_that_ended_is_opened_again(log_lines):
    """A stream that ended is opened again, and its error is logged."""
    tested = SupervisorUnderTest()
    tested.run(_ended(), _ended())
    assert tested.reasons == ["start", "ended"]
    ends = [line["message"] for line in log_lines() if line["event"] == "stream_ended"]
    assert ends == ["pubsub is unavailable: it ended"] * 2
    assert tested.liveness.why_dead() is None


@pytest.mark.parametrize("when", ["opening", "later"])
def test_a_refusal_ends_the_supervisor(when):
    """A refusal ends the supervisor, because waiting does not help."""
    tested, refused = SupervisorUnderTest(), BackendRefused("pubsub", "x")
    ended = _ended()
    ended.error = refused
    tested.script = [refused if when == "opening" else ended]
    with pytest.raises(BackendRefused):
        tested.supervisor.keep_open()
    assert tested.supervisor.wait_until_ended(0)


def test_a_quiet_stream_is_closed_and_another_opened():
    """A quiet stream is closed and another one opened, any number of times."""
    tested, streams = SupervisorUnderTest(idle_seconds=0.02), [FakeStream() for _ in range(3)]
    tested.run(*streams)
    assert tested.reasons == ["start", "idle", "idle"]
    assert all(stream.has_ended and not stream.was_cut for stream in streams)
    assert tested.liveness.why_dead() is None


def test_a_stream_under_which_a_delivery_is_worked_is_not_quiet():
    """A stream is not quiet while a delivery is worked, however long that takes."""
    tested, stream = SupervisorUnderTest(idle_seconds=0.02), FakeStream()
    threading.Timer(0.3, tested.waiter.request_stop, ("enough",)).start()
    with tested.drain.delivery():
        tested.run(stream)
    assert not stream.was_cancelled.is_set()


def test_a_stream_of_a_paused_intake_is_not_quiet():
    """A stream is not quiet while intake is paused."""
    tested, stream = SupervisorUnderTest(idle_seconds=0.02), FakeStream()
    for _ in range(FAILURES_TO_OPEN):
        tested.breaker.record_failure(BackendUnavailable("firestore", "x"))
    threading.Timer(0.3, tested.waiter.request_stop, ("enough",)).start()
    tested.run(stream)
    assert not stream.was_cancelled.is_set()


def _pause(breaker):
    breaker.pause("storage", "x", probe=lambda: "x")


def test_a_long_pause_closes_the_stream_until_it_ends(log_lines):
    """In a long pause waiting messages are given back and the stream is closed; the next is for after it."""
    tested, stream = SupervisorUnderTest(long_pause_seconds=0.3), FakeStream()
    _pause(tested.breaker)
    given_back = threading.Event()

    def resume():
        stream.was_cancelled.wait(10)
        given_back.set() if tested.breaker.wait_until_closed() == "paused" else None
        time.sleep(0.2)
        opened_in_the_pause = len(tested.opened)
        tested.breaker.resume("storage")
        assert opened_in_the_pause == 1

    resuming = threading.Thread(target=resume)
    resuming.start()
    tested.run(stream, _ended())
    resuming.join(10)
    assert given_back.is_set()
    assert tested.reasons == ["start", "paused"]
    assert "The intake is paused for long: no stream until it goes on" in [
        line["message"] for line in log_lines()
    ]


def test_a_short_pause_keeps_the_stream():
    """A pause that is not long keeps the stream, and its messages wait."""
    tested, stream = SupervisorUnderTest(), FakeStream()
    _pause(tested.breaker)
    threading.Timer(0.3, tested.waiter.request_stop, ("enough",)).start()
    tested.run(stream)
    assert not stream.was_cancelled.is_set()


def test_a_stream_that_ends_in_a_long_pause_is_opened_after_it():
    """A stream that breaks in a long pause is not opened before the end of the pause."""
    tested = SupervisorUnderTest(long_pause_seconds=0)
    _pause(tested.breaker)
    threading.Timer(0.3, tested.breaker.resume, ("storage",)).start()
    began = time.monotonic()
    tested.run(_ended())
    assert tested.reasons == ["paused"]
    assert time.monotonic() - began >= 0.3


def test_a_stream_that_does_not_close_in_a_pause_is_disconnected():
    """A pause does not stop the time within which a stream has to close."""
    tested = SupervisorUnderTest(long_pause_seconds=0.05, max_seconds=0.05)
    stream = FakeStream(stuck=True)
    threading.Timer(0.5, tested.breaker.resume, ("storage",)).start()
    threading.Timer(0.1, _pause, (tested.breaker,)).start()
    tested.run(stream)
    assert stream.was_cut


def test_a_delivery_that_arrives_before_the_close_may_finish():
    """A delivery that arrived just before the close may finish: its stream is not stuck."""
    tested = SupervisorUnderTest(idle_seconds=0.02, max_seconds=0.05)
    stream, came = FakeStream(stuck=True), threading.Event()

    def deliver():
        with tested.drain.delivery():
            came.set()
            stream.was_cancelled.wait(10)
            time.sleep(0.3)  # far longer than a close may take
        stream.end()

    delivery = threading.Thread(target=deliver)
    original = stream.cancel

    def cancel():
        delivery.start()
        came.wait(10)
        original()

    stream.cancel = cancel
    tested.run(stream)
    delivery.join()
    assert (stream.was_cut, tested.liveness.why_dead()) == (False, None)


def test_a_quiet_stream_that_does_not_close_is_cut_off(log_lines):
    """The connection of a quiet stream that does not close is cut; one such stream is no failure."""
    tested, stuck = SupervisorUnderTest(idle_seconds=0.02, max_seconds=0.05), FakeStream(stuck=True)
    tested.run(stuck, FakeStream())
    assert (tested.reasons, stuck.was_cut) == (["start", "idle"], True)
    assert tested.liveness.why_dead() is None
    assert any("was disconnected" in line["message"] for line in log_lines())


def test_three_streams_in_a_row_that_do_not_close_make_the_process_dead():
    """Three streams in a row that do not close make the process dead, because only a restart can help."""
    tested = SupervisorUnderTest(idle_seconds=0.02, max_seconds=0.05)
    tested.run(*[FakeStream(stuck=True) for _ in range(3)])
    assert tested.liveness.why_dead() == "stream closing: failed 3 times in a row"


def test_a_stream_that_closes_makes_it_alive_again():
    """A stream that closes resets the count."""
    tested = SupervisorUnderTest(idle_seconds=0.02, max_seconds=0.05)
    tested.run(*[FakeStream(stuck=True) for _ in range(3)], FakeStream())
    assert tested.liveness.why_dead() is None


def test_three_openings_in_a_row_that_fail_make_the_process_dead():
    """Three openings in a row that fail with an unexpected error make the process dead."""
    tested = SupervisorUnderTest()
    tested.run(*[_fails_to_open] * 3)
    assert tested.liveness.why_dead() == "stream opening: failed 3 times in a row"


def test_an_opening_that_goes_well_makes_it_alive_again():
    """A successful opening resets the count."""
    tested = SupervisorUnderTest()
    tested.run(*[_fails_to_open] * 3, _ended())
    assert tested.liveness.why_dead() is None


def test_an_unavailable_pubsub_does_not_make_the_process_dead():
    """An unavailable Pub/Sub never makes the process dead, because a restart does not help."""
    tested = SupervisorUnderTest()
    tested.run(*[BackendUnavailable("pubsub", "x")] * 10)
    assert tested.liveness.why_dead() is None


def test_openings_that_hang_are_abandoned_and_count():
    """Openings that hang are abandoned and counted; a stream that opens late is closed again."""
    tested, release = SupervisorUnderTest(max_seconds=0.05), threading.Event()
    late = [FakeStream() for _ in range(3)]

    def hang(stream):
        release.wait(10)
        return stream

    tested.run(*[lambda stream=stream: hang(stream) for stream in late])
    assert tested.liveness.why_dead() == "stream opening: failed 3 times in a row"
    assert tested.reasons == []
    release.set()
    assert all(stream.was_cancelled.wait(10) for stream in late)


def test_a_stream_that_opens_just_after_its_time_is_cancelled_and_not_used():
    """A stream that opens between the end of the wait and the check of the result is too late."""
    tested, stream = SupervisorUnderTest(), FakeStream()
    wait_until = tested.waiter.wait_until

    def just_too_late(holds, seconds):
        tested.waiter.wait_until = wait_until
        wait_until(holds, seconds)
        return False

    tested.waiter.wait_until = just_too_late
    tested.run(stream)
    assert stream.was_cancelled.is_set()
    assert tested.reasons == []


def test_a_stop_does_not_wait_for_an_opening_that_hangs():
    """A stop does not wait for a hanging opening or another client call."""
    tested, release, stream = SupervisorUnderTest(), threading.Event(), FakeStream()

    def hang():
        tested.waiter.request_stop("signal SIGTERM")
        release.wait(10)
        return stream

    started = time.monotonic()
    tested.run(hang)
    assert time.monotonic() - started < 5
    assert tested.supervisor.wait_until_ended(0)
    release.set()
    assert stream.was_cancelled.wait(10)


def test_a_stop_does_not_wait_for_a_quiet_stream_that_does_not_close():
    """A stop does not wait for a quiet stream; the drain does, because there may be acks to send."""
    tested, stuck = SupervisorUnderTest(idle_seconds=0.02), FakeStream(stuck=True)
    original = stuck.cancel

    def cancel():
        original()
        tested.waiter.request_stop("signal SIGTERM")

    stuck.cancel = cancel
    tested.run(stuck)
    assert not tested.supervisor.is_open
    assert not tested.supervisor.wait_until_ended(0)
    stuck.end()
    assert tested.supervisor.wait_until_ended(0)


def test_a_pause_between_two_openings_ends_with_a_stop(monkeypatch):
    """A stop ends the pause between two openings, which may be half a minute."""
    monkeypatch.setattr(timing, "full_jitter_seconds", lambda **_: 60.0)
    tested, started = SupervisorUnderTest(), time.monotonic()
    threading.Timer(0.1, tested.waiter.request_stop, ("signal SIGTERM",)).start()
    tested.run(BackendUnavailable("pubsub", "x"))
    assert time.monotonic() - started < 5


def test_pauses_grow_and_are_reset_after_a_long_lived_stream(monkeypatch):
    """Pauses grow to half a minute with full jitter, and start small after a long-lived stream."""
    drawn = []
    monkeypatch.setattr(timing, "full_jitter_seconds", lambda **given: drawn.append(given) or 0.0)
    SupervisorUnderTest().run(*[BackendUnavailable("pubsub", "x")] * 6)
    assert [given["high"] for given in drawn[:6]] == [2, 4, 8, 16, 30, 30]
    assert {given["low"] for given in drawn} == {0.5}
    drawn.clear()
    monkeypatch.setattr(supervisor, "LONG_LIVED_SECONDS", 0.0)
    SupervisorUnderTest().run(_ended(), _ended())
    assert [given["high"] for given in drawn[:2]] == [2, 2]


def test_quiet_counts_from_the_last_event():
    """Quiet counts from the last arrival, settlement, opening of the stream or end of a pause."""
    clock = HandClock()
    drain = Drain(clock.monotonic)
    breaker = CircuitBreaker(probes={"firestore": lambda: None}, probe_seconds=LONG, clock=clock.monotonic)
    quiet = Quiet(drain=drain, breaker=breaker, clock=clock.monotonic)
    clock.advance(10)
    assert quiet.seconds() == 10
    quiet.restart()
    clock.advance(4)
    assert quiet.seconds() == 4
    with drain.delivery():
        clock.advance(100)
        assert quiet.seconds() == 0
    assert quiet.seconds() == 0
    clock.advance(5)
    assert quiet.seconds() == 5
    for _ in range(FAILURES_TO_OPEN):
        breaker.record_failure(BackendUnavailable("firestore", "x"))
    clock.advance(100)
    assert quiet.seconds() == 0
    breaker.resume("firestore")
    clock.advance(7)
    assert quiet.seconds() == 7
