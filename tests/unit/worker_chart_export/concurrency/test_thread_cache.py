"""Threads that are kept: each work has one at once, and none has anything of the one before."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from queue import Queue

import pytest

from worker_chart_export.concurrency.thread_cache import ThreadCache

WAIT_SECONDS = 10
_bound: contextvars.ContextVar[str] = contextvars.ContextVar("bound", default="nothing")


@pytest.fixture
def do():
    """Has a work done and gives what it returned; by then its thread is about to wait for the next."""
    threads = ThreadCache("test")

    def done(work):
        results, ended = [], threading.Event()

        def keep():
            results.append(work())
            ended.set()

        threads.run(keep)
        assert ended.wait(WAIT_SECONDS)
        assert threads._idle.acquire(timeout=WAIT_SECONDS)  # the thread comes back
        threads._idle.release()
        return results[0]

    done.threads = threads
    return done


def test_one_thread_does_one_work_after_the_other(do):
    """It is started once."""
    assert len({do(threading.get_ident) for _ in range(20)}) == 1


def test_works_of_one_time_have_a_thread_each():
    """None waits for another."""
    threads, meeting = ThreadCache("test"), threading.Barrier(21)
    for _ in range(2):
        for _ in range(20):
            threads.run(lambda: meeting.wait(WAIT_SECONDS))
        meeting.wait(WAIT_SECONDS)


def test_a_work_finds_nothing_bound_by_the_one_before(do):
    """As in a new thread."""
    do(lambda: _bound.set("mine"))
    assert do(_bound.get) == "nothing"


def test_what_a_work_held_on_to_is_let_go(do):
    """A chart of some megabytes, say, while the thread waits for the next."""

    class Chart:
        pass

    chart = Chart()
    seen = weakref.ref(chart)
    do(lambda chart=chart: id(chart))
    del chart
    gc.collect()
    assert seen() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_work_that_raises_ends_its_thread_and_no_other_work(do):
    """The next has a thread again."""
    failed: Queue[threading.Thread] = Queue()

    def fail():
        failed.put(threading.current_thread())
        raise KeyError("x")

    do.threads.run(fail)
    thread = failed.get(timeout=WAIT_SECONDS)
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    assert do(threading.current_thread) is not thread


def test_no_thread_holds_up_the_end_of_the_process(do):
    """Whatever hangs."""
    assert do(lambda: threading.current_thread().daemon)


def test_without_a_thread_to_be_had_the_caller_is_told(monkeypatch):
    """And nothing is done later, behind his back."""
    threads, done = ThreadCache("test"), []

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.run(lambda: done.append("late"))
    ended = threading.Event()
    threads.run(ended.set)
    assert ended.wait(WAIT_SECONDS)
    assert done == []
