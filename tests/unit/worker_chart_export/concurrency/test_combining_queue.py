"""Many callers, one doer: who takes turns, who shares them, who gives up, and who is told what."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.support.ledger.ledger_process import until
from worker_chart_export.concurrency.combining_queue import CombiningQueue, QueuedRequest
from worker_chart_export.errors import BackendRefused, BackendUnavailable

BOTH = pytest.mark.parametrize("in_background", [False, True], ids=["by callers", "aside"])
AWAY = BackendUnavailable("firestore", "away")


class Doer:
    """Answers each request with the number of those who shared its turn.

    Attributes:
        turns: The batches so far.
        script: What is called in place of an answer, one for each of the first turns.
    """

    def __init__(self, *script):
        self.turns, self.script = [], list(script)

    def attempt(self, batch):
        """Take a turn."""
        self.turns.append(list(batch))
        if self.script:
            self.script.pop(0)(batch)
        else:
            answer(batch)


def answer(batch):
    """As a turn that went well."""
    for request in batch:
        request.settled = len(batch)


def fail_with(error):
    """A turn that ends in that error."""

    def raise_it(_batch):
        raise error

    return raise_it


def turns_of(doer, *, in_background=False, choose=list, pause=lambda: None):
    """CombiningQueue that the doer takes."""
    return CombiningQueue(
        subject="the thing", choose=choose, attempt=doer.attempt, pause=pause, in_background=in_background
    )


def patience(seconds=20.0):
    """Patience that ends so many seconds from now."""
    deadline = time.monotonic() + seconds
    return lambda: deadline - time.monotonic()


@contextmanager
def held(doer):
    """The first turn hangs until the block ends, then answers; gives what tells when it has begun."""
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
    """Who shares a turn."""

    @BOTH
    def test_who_is_alone_has_a_turn_of_its_own(self, in_background):
        """At once."""
        doer, request = Doer(), QueuedRequest()
        assert turns_of(doer, in_background=in_background).wait_for(request, patience()) == []
        assert (request.settled, len(doer.turns)) == (1, 1)

    @BOTH
    def test_all_who_wait_share_the_next_turn(self, in_background):
        """They gather while one is being taken."""
        doer = Doer()
        turns, requests = turns_of(doer, in_background=in_background), [QueuedRequest() for _ in range(10)]
        with held(doer) as (begun, executor):
            executor.submit(turns.wait_for, QueuedRequest(), patience())
            assert begun.wait(10)
            waiting = [executor.submit(turns.wait_for, request, patience()) for request in requests]
            until(lambda: len(turns._waiting) == 11)
        assert [future.result() for future in waiting] == [[]] * 10
        assert [request.settled for request in requests] == [10] * 10
        assert [len(batch) for batch in doer.turns] == [1, 10]

    @BOTH
    def test_who_is_not_chosen_waits_for_another_turn(self, in_background):
        """One at a time, if so chosen."""
        doer = Doer()
        turns, requests = turns_of(doer, in_background=in_background, choose=lambda waiting: waiting[:1]), []
        with ThreadPoolExecutor(5) as executor:
            for _ in range(5):
                requests.append(QueuedRequest())
                executor.submit(turns.wait_for, requests[-1], patience())
        assert [request.settled for request in requests] == [1] * 5
        assert [len(batch) for batch in doer.turns] == [1] * 5

    @BOTH
    def test_who_has_no_answer_yet_stays_for_the_next_turn(self, in_background):
        """A turn need not answer everybody."""
        doer, request = Doer(lambda _batch: None, lambda _batch: None), QueuedRequest()
        turns_of(doer, in_background=in_background).wait_for(request, patience())
        assert doer.turns == [[request]] * 3

    def test_others_join_during_the_pause(self):
        """Which comes before each turn."""
        doer, joined, request = Doer(), QueuedRequest(), QueuedRequest()
        with ThreadPoolExecutor(1) as executor:

            def pause():
                if not doer.turns:
                    executor.submit(turns.wait_for, joined, patience())
                    until(lambda: len(turns._waiting) == 2)

            turns = turns_of(doer, pause=pause)
            turns.wait_for(request, patience())
        assert (request.settled, joined.settled, len(doer.turns)) == (2, 2, 1)


class TestTrouble:
    """CombiningQueue that fail."""

    @BOTH
    def test_an_outage_is_everybody_s_trouble_and_they_try_again(self, in_background):
        """Until it is over."""
        doer, request = Doer(fail_with(AWAY), fail_with(AWAY)), QueuedRequest()
        turns_of(doer, in_background=in_background).wait_for(request, patience())
        assert (request.settled, request.error, request.last_error) == (1, None, AWAY)
        assert len(doer.turns) == 3

    @BOTH
    def test_an_outage_that_outlasts_the_patience_is_the_error(self, in_background):
        """The last one's words."""
        doer, request = Doer(*[fail_with(AWAY)] * 1000), QueuedRequest()
        pause = threading.Event()
        turns = turns_of(doer, in_background=in_background, pause=lambda: pause.wait(0.01))
        turns.wait_for(request, patience(0.1))
        assert request.error is AWAY
        assert turns._waiting == []

    @BOTH
    def test_any_other_error_on_purpose_ends_them_all(self, in_background):
        """Each is told."""
        refused, doer = BackendRefused("firestore", "no"), Doer()
        turns, requests = turns_of(doer, in_background=in_background), [QueuedRequest() for _ in range(3)]
        with held(doer) as (begun, executor):
            doer.script.append(fail_with(refused))
            executor.submit(turns.wait_for, QueuedRequest(), patience())
            assert begun.wait(10)
            for request in requests:
                executor.submit(turns.wait_for, request, patience())
            until(lambda: len(turns._waiting) == 4)
        assert [request.error for request in requests] == [refused] * 3

    def test_an_error_nobody_foresaw_ends_them_all_too(self):
        """And is raised where it happened."""
        request = QueuedRequest()
        with pytest.raises(ZeroDivisionError):
            turns_of(Doer(lambda _batch: 1 / 0)).wait_for(request, patience())
        assert isinstance(request.error, BackendRefused)
        assert "ZeroDivisionError" in str(request.error)

    def test_aside_it_is_told_to_all_and_to_the_log(self, monkeypatch):
        """Nobody is left waiting."""
        told = []
        monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
        request, doer = QueuedRequest(), Doer(lambda _batch: 1 / 0)
        turns = turns_of(doer, in_background=True)
        turns.wait_for(request, patience())
        until(lambda: told)
        assert isinstance(request.error, BackendRefused)
        assert told == [ZeroDivisionError]
        again = QueuedRequest()
        turns.wait_for(again, patience())
        assert again.settled == 1

    @BOTH
    def test_an_error_after_some_were_answered_leaves_them_their_answer(self, in_background):
        """It is true."""

        def answer_first(batch):
            batch[0].settled = "done"
            raise BackendRefused("firestore", "no")

        request = QueuedRequest()
        turns_of(Doer(answer_first), in_background=in_background).wait_for(request, patience())
        assert (request.settled, request.error) == ("done", None)

    def test_a_system_without_threads_left_takes_turns_by_callers(self, monkeypatch):
        """Slower to let go, and right."""

        def none_left(_thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", none_left)
        request = QueuedRequest()
        turns_of(Doer(), in_background=True).wait_for(request, patience())
        assert request.settled == 1


class TestPatience:
    """Who waits no more."""

    def test_without_patience_it_is_tried_once(self):
        """What was begun is worth one try."""
        request = QueuedRequest()
        turns_of(Doer()).wait_for(request, lambda: 0.0)
        assert request.settled == 1

    def test_and_once_more_when_a_look_is_owed(self):
        """To see what became of it."""

        def unknown(batch):
            batch[0].must_verify = True
            raise AWAY

        doer, request = Doer(unknown), QueuedRequest()
        turns_of(doer).wait_for(request, lambda: 0.0)
        assert (request.settled, len(doer.turns)) == (1, 2)

    @BOTH
    def test_who_loses_patience_behind_a_turn_leaves_the_queue(self, in_background):
        """It was never tried."""
        doer, request = Doer(), QueuedRequest()
        turns = turns_of(doer, in_background=in_background)
        with held(doer) as (begun, executor):
            executor.submit(turns.wait_for, QueuedRequest(), patience())
            assert begun.wait(10)
            turns.wait_for(request, patience(0.1))
            assert request.was_given_up
            assert str(request.error) == "firestore is unavailable: the thing is contended"
            assert request not in turns._waiting
        assert [request in batch for batch in doer.turns] == [False]

    def test_what_is_answered_after_its_caller_left_is_an_orphan(self):
        """Whoever took the turn is told."""
        orphan, mine = QueuedRequest(), QueuedRequest()

        def lose_patience_first(batch):
            until(lambda: orphan.was_given_up)
            answer(batch)

        with ThreadPoolExecutor(1) as executor:

            def pause():
                executor.submit(turns.wait_for, orphan, lambda: 0.0 if orphan.in_flight else 20.0)
                until(lambda: orphan in turns._waiting)

            turns = turns_of(Doer(lose_patience_first), pause=pause)
            assert turns.wait_for(mine, patience()) == [orphan]
        assert (orphan.settled, mine.settled) == (2, 2)

    def test_turns_aside_hold_no_caller_beyond_its_patience(self):
        """Not even the one for whom the turn was begun."""
        doer, request = Doer(), QueuedRequest()
        turns, started = turns_of(doer, in_background=True), time.monotonic()
        with held(doer):
            turns.wait_for(request, patience(0.2))
            assert time.monotonic() - started < 2
            assert isinstance(request.error, BackendUnavailable)

    def test_a_turn_aside_for_nobody_does_nothing(self):
        """All have left during the pause."""
        doer, pausing, go = Doer(), threading.Event(), threading.Event()

        def pause():
            pausing.set()
            go.wait(10)

        turns, request = turns_of(doer, in_background=True, pause=pause), QueuedRequest()
        turns.wait_for(request, patience(0.1))
        assert request.was_given_up
        go.set()
        until(lambda: not turns._busy)
        assert doer.turns == []
