"""Waiting requests are processed in batches: sharing, errors, and callers that leave."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.support.ledger.ledger_process import until
from worker_chart_export.concurrency.combining_queue import CombiningQueue, QueuedRequest
from worker_chart_export.errors import BackendRefused, BackendUnavailable, StepTimedOut

MODULE = "worker_chart_export.concurrency.combining_queue"
BOTH = pytest.mark.parametrize("in_background", [False, True], ids=["by callers", "in background"])
OUTAGE = BackendUnavailable("firestore", "down")
TIMED_OUT = StepTimedOut("too late")


@pytest.fixture(autouse=True)
def _no_polls(monkeypatch):
    """Wake no caller by the time alone: each has to be woken by what it waits for."""
    monkeypatch.setattr(f"{MODULE}.POLL_SECONDS", 60.0)


class Doer:
    """A processor that answers each request with the size of its batch.

    Attributes:
        batches: The batches so far.
        script: What is called in place of an answer, one for each of the first batches.
    """

    def __init__(self, *script):
        self.batches, self.script = [], list(script)

    def attempt(self, batch):
        """Process a batch."""
        self.batches.append(list(batch))
        if self.script:
            self.script.pop(0)(batch)
        else:
            answer(batch)


def answer(batch):
    """Process a batch without errors."""
    for request in batch:
        request.answer = len(batch)


def fail_with(error):
    """Return a batch function that raises that error."""

    def raise_it(_batch):
        raise error

    return raise_it


def queue_of(doer, *, in_background=False, choose=list, pause=lambda: None):
    """Return a queue whose batches the doer processes."""
    return CombiningQueue(
        choose=choose,
        process=doer.attempt,
        pause=pause,
        timeout_error=lambda: TIMED_OUT,
        in_background=in_background,
    )


def time_left(seconds=20.0):
    """Return a scope that ends in this number of seconds."""
    deadline = time.monotonic() + seconds
    return lambda: deadline - time.monotonic()


@contextmanager
def held(doer):
    """Block the first batch until the block ends; yield the event of its start."""
    begun, go = threading.Event(), threading.Event()

    def hang(batch):
        begun.set()
        assert go.wait(20)
        answer(batch)

    doer.script.insert(0, hang)
    with ThreadPoolExecutor(32) as executor:
        try:
            yield begun, executor
        finally:
            go.set()


class TestGroups:
    """Requests that share a batch."""

    @BOTH
    def test_a_single_request_has_a_batch_of_its_own(self, in_background):
        """A single request is processed at once in its own batch."""
        doer, request = Doer(), QueuedRequest()
        assert queue_of(doer, in_background=in_background).wait_for(request, time_left()) == []
        assert (request.answer, len(doer.batches)) == (1, 1)

    @BOTH
    def test_all_that_wait_share_the_next_batch(self, in_background):
        """All requests that wait during a batch share the next one."""
        doer = Doer()
        queue, requests = queue_of(doer, in_background=in_background), [QueuedRequest() for _ in range(10)]
        with held(doer) as (begun, executor):
            executor.submit(queue.wait_for, QueuedRequest(), time_left())
            assert begun.wait(10)
            waiting = [executor.submit(queue.wait_for, request, time_left()) for request in requests]
            until(lambda: len(queue._waiting) == 11)
        assert [future.result() for future in waiting] == [[]] * 10
        assert [request.answer for request in requests] == [10] * 10
        assert [len(batch) for batch in doer.batches] == [1, 10]

    @BOTH
    def test_a_request_that_is_not_chosen_waits_for_another_batch(self, in_background):
        """A request that is not chosen for a batch waits for another."""
        doer = Doer()
        queue, requests = queue_of(doer, in_background=in_background, choose=lambda waiting: waiting[:1]), []
        with ThreadPoolExecutor(5) as executor:
            for _ in range(5):
                requests.append(QueuedRequest())
                executor.submit(queue.wait_for, requests[-1], time_left())
        assert [request.answer for request in requests] == [1] * 5
        assert [len(batch) for batch in doer.batches] == [1] * 5

    @BOTH
    def test_a_request_without_an_answer_stays_for_the_next_batch(self, in_background):
        """A request without an answer stays for the next batch."""
        doer, request = Doer(lambda _batch: None, lambda _batch: None), QueuedRequest()
        queue_of(doer, in_background=in_background).wait_for(request, time_left())
        assert doer.batches == [[request]] * 3

    def test_others_join_during_the_pause(self):
        """Requests that arrive during the pause before a batch join it."""
        doer, joined, request = Doer(), QueuedRequest(), QueuedRequest()
        with ThreadPoolExecutor(1) as executor:

            def pause():
                if not doer.batches:
                    executor.submit(queue.wait_for, joined, time_left())
                    until(lambda: len(queue._waiting) == 2)

            queue = queue_of(doer, pause=pause)
            queue.wait_for(request, time_left())
        assert (request.answer, joined.answer, len(doer.batches)) == (2, 2, 1)


class TestErrors:
    """Batches that fail."""

    @BOTH
    def test_after_an_outage_all_try_again(self, in_background):
        """After an outage all requests are tried again until it ends."""
        doer, request = Doer(fail_with(OUTAGE), fail_with(OUTAGE)), QueuedRequest()
        queue_of(doer, in_background=in_background).wait_for(request, time_left())
        assert (request.answer, request.error, request.last_error) == (1, None, OUTAGE)
        assert len(doer.batches) == 3

    @BOTH
    def test_an_outage_that_lasts_longer_than_the_time_is_the_error(self, in_background):
        """An outage that lasts longer than the caller's time is raised, and no timeout."""
        doer, request = Doer(*[fail_with(OUTAGE)] * 1000), QueuedRequest()
        pause = threading.Event()
        queue = queue_of(doer, in_background=in_background, pause=lambda: pause.wait(0.01))
        queue.wait_for(request, time_left(0.1))
        assert request.error is OUTAGE
        assert queue._waiting == []

    def test_a_caller_whose_time_ends_with_an_outage_leaves_the_next_batch_to_another(self):
        """The other one is woken at once."""
        doer, joined, request = Doer(fail_with(OUTAGE)), QueuedRequest(), QueuedRequest()
        with ThreadPoolExecutor(1) as executor:

            def pause():
                if not doer.batches:
                    executor.submit(queue.wait_for, joined, time_left())
                    until(lambda: len(queue._waiting) == 2)

            queue, started = queue_of(doer, pause=pause), time.monotonic()
            queue.wait_for(request, lambda: 0.0 if request.last_error else 20.0)
        assert time.monotonic() - started < 10
        assert (request.error, joined.answer) == (OUTAGE, 1)

    @BOTH
    def test_any_other_error_on_purpose_ends_them_all(self, in_background):
        """Any other expected error ends all requests of the batch."""
        refused, doer = BackendRefused("firestore", "no"), Doer()
        queue, requests = queue_of(doer, in_background=in_background), [QueuedRequest() for _ in range(3)]
        with held(doer) as (begun, executor):
            doer.script.append(fail_with(refused))
            executor.submit(queue.wait_for, QueuedRequest(), time_left())
            assert begun.wait(10)
            for request in requests:
                executor.submit(queue.wait_for, request, time_left())
            until(lambda: len(queue._waiting) == 4)
        assert [request.error for request in requests] == [refused] * 3

    def test_an_unexpected_error_ends_them_all_too(self):
        """An unexpected error ends all requests of the batch and is raised in the caller that ran it."""
        request = QueuedRequest()
        with pytest.raises(ZeroDivisionError):
            queue_of(Doer(lambda _batch: 1 / 0)).wait_for(request, time_left())
        assert isinstance(request.error, BackendRefused)
        assert "ZeroDivisionError" in str(request.error)

    def test_a_background_error_is_raised_in_all_callers_and_logged(self, monkeypatch):
        """In the background an unexpected error is raised in all callers and logged."""
        logged = []
        monkeypatch.setattr(threading, "excepthook", lambda args: logged.append(args.exc_type))
        request, doer = QueuedRequest(), Doer(lambda _batch: 1 / 0)
        queue = queue_of(doer, in_background=True)
        queue.wait_for(request, time_left())
        until(lambda: logged)
        assert isinstance(request.error, BackendRefused)
        assert logged == [ZeroDivisionError]
        again = QueuedRequest()
        queue.wait_for(again, time_left())
        assert again.answer == 1

    @BOTH
    def test_an_error_after_some_were_answered_leaves_them_their_answer(self, in_background):
        """Requests that were answered before the error keep their answers."""

        def answer_first(batch):
            batch[0].answer = "done"
            raise BackendRefused("firestore", "no")

        request = QueuedRequest()
        queue_of(Doer(answer_first), in_background=in_background).wait_for(request, time_left())
        assert (request.answer, request.error) == ("done", None)

    def test_without_threads_the_callers_run_background_batches(self, monkeypatch):
        """When no thread can be started, the callers run background batches themselves."""

        def none_left(_thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", none_left)
        request = QueuedRequest()
        queue_of(Doer(), in_background=True).wait_for(request, time_left())
        assert request.answer == 1


class TestTimeouts:
    """Callers whose time ends."""

    def test_without_time_it_is_tried_once(self):
        """A caller without time gets one attempt."""
        request = QueuedRequest()
        queue_of(Doer()).wait_for(request, lambda: 0.0)
        assert request.answer == 1

    def test_a_caller_without_time_is_tried_again_when_it_must_be_verified(self):
        """A caller without time gets a second attempt when the first must be verified."""

        def unknown(batch):
            batch[0].must_verify = True
            raise OUTAGE

        doer, request = Doer(unknown), QueuedRequest()
        queue_of(doer).wait_for(request, lambda: 0.0)
        assert (request.answer, len(doer.batches)) == (1, 2)

    @BOTH
    def test_a_caller_whose_time_ends_behind_another_batch_leaves_the_queue(self, in_background):
        """A caller whose time ends during another batch leaves the queue without an attempt."""
        doer, request = Doer(), QueuedRequest()
        queue = queue_of(doer, in_background=in_background)
        with held(doer) as (begun, executor):
            executor.submit(queue.wait_for, QueuedRequest(), time_left())
            assert begun.wait(10)
            queue.wait_for(request, time_left(0.1))
            assert request.abandoned
            assert request.error is TIMED_OUT
            assert request not in queue._waiting
        assert [request in batch for batch in doer.batches] == [False]

    def test_an_interrupted_caller_leaves_the_queue(self):
        """Nobody processes its request later."""
        doer, request = Doer(), QueuedRequest()
        queue = queue_of(doer)
        with pytest.raises(KeyboardInterrupt):
            queue.wait_for(request, lambda: fail_with(KeyboardInterrupt())(()))
        queue.wait_for(QueuedRequest(), time_left())
        assert request.abandoned
        assert [len(batch) for batch in doer.batches] == [1]

    def test_when_the_caller_whose_turn_it_is_leaves_the_next_one_has_it(self):
        """A caller that was woken to run the next batch may be interrupted before that."""
        doer, first, next_one = Doer(), QueuedRequest(), QueuedRequest()
        queue = queue_of(doer)

        def interrupt_its_turn():
            if first.is_done:
                raise KeyboardInterrupt
            return 20.0

        with held(doer) as (begun, executor):
            executor.submit(queue.wait_for, first, time_left())
            assert begun.wait(10)
            leaver = executor.submit(queue.wait_for, QueuedRequest(), interrupt_its_turn)
            until(lambda: len(queue._waiting) == 2)
            follower = executor.submit(queue.wait_for, next_one, time_left())
            until(lambda: len(queue._waiting) == 3)
            started = time.monotonic()
        assert time.monotonic() - started < 10
        assert isinstance(leaver.exception(10), KeyboardInterrupt)
        assert follower.result(10) == []
        assert [next_one in batch for batch in doer.batches] == [False, True]

    def test_an_answer_after_its_caller_left_is_returned_to_the_runner(self, monkeypatch):
        """An answer that comes after its caller left is returned to the caller that ran the batch."""
        monkeypatch.setattr(f"{MODULE}.POLL_SECONDS", 0.05)
        left, mine = QueuedRequest(), QueuedRequest()

        def abandon_first(batch):
            until(lambda: left.abandoned)
            answer(batch)

        with ThreadPoolExecutor(1) as executor:

            def pause():
                executor.submit(queue.wait_for, left, lambda: 0.0 if left.in_flight else 20.0)
                until(lambda: left in queue._waiting)

            queue = queue_of(Doer(abandon_first), pause=pause)
            assert queue.wait_for(mine, time_left()) == [left]
        assert (left.answer, mine.answer) == (2, 2)

    def test_a_request_whose_caller_was_told_of_no_answer_is_not_tried_again(self):
        """The batch fails after the caller has left, with the error in its hand."""
        left, later = QueuedRequest(), QueuedRequest()

        def fail_late(_batch):
            until(lambda: left.abandoned)
            left.take_error()
            raise OUTAGE

        doer = Doer(fail_late)
        queue = queue_of(doer, in_background=True)
        queue.wait_for(left, lambda: 0.0 if left.in_flight else 0.05)
        until(lambda: not queue._busy)
        queue.wait_for(later, time_left())
        assert doer.batches == [[left], [later]]

    def test_an_interrupt_while_a_thread_starts_gives_the_turn_back(self, monkeypatch):
        """The next caller does not wait for a batch that nobody runs."""

        def interrupt(_threads, _work):
            raise KeyboardInterrupt

        queue, request = queue_of(Doer(), in_background=True), QueuedRequest()
        with monkeypatch.context() as patched:
            patched.setattr("worker_chart_export.concurrency.parallel.ThreadCache.run", interrupt)
            with pytest.raises(KeyboardInterrupt):
                queue.wait_for(QueuedRequest(), time_left())
        queue.wait_for(request, time_left(10))
        assert request.answer == 1

    def test_background_batches_hold_no_caller_longer_than_its_time(self):
        """A background batch holds no caller longer than its time, not even the one that started it."""
        doer, request = Doer(), QueuedRequest()
        queue, started = queue_of(doer, in_background=True), time.monotonic()
        with held(doer):
            queue.wait_for(request, time_left(0.2))
            assert time.monotonic() - started < 2
            assert isinstance(request.error, BackendUnavailable)

    def test_a_background_batch_without_callers_does_nothing(self):
        """A background batch does nothing when all its callers left during the pause."""
        doer, pausing, go = Doer(), threading.Event(), threading.Event()

        def pause():
            pausing.set()
            go.wait(10)

        queue, request = queue_of(doer, in_background=True, pause=pause), QueuedRequest()
        queue.wait_for(request, time_left(0.1))
        assert request.abandoned
        go.set()
        until(lambda: not queue._busy)
        assert doer.batches == []
