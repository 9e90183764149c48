"""Reused threads: each task starts at once, and no task sees data of the one before."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from queue import Queue

import pytest

from tests.support.process.renderers import wait_until
from worker_chart_export.concurrency.parallel import ThreadCache

WAIT_SECONDS = 10
_bound: contextvars.ContextVar[str] = contextvars.ContextVar("bound", default="nothing")


@pytest.fixture
def do():
    """Run a task and return its result; by then its thread is about to wait for the next."""
    threads = ThreadCache("test")

    def done(work):
        results, ended = [], threading.Event()

        def keep():
            results.append(work())
            ended.set()

        threads.run(keep)
        assert ended.wait(WAIT_SECONDS)
        wait_until(lambda: threads._idle, "thread that comes back")
        return results[0]

    done.threads = threads
    return done


def test_one_thread_runs_one_task_after_the_other(do):
    """One thread runs one task after the other."""
    assert len({do(threading.get_ident) for _ in range(20)}) == 1


def test_simultaneous_tasks_have_a_thread_each():
    """Simultaneous tasks have a thread each and do not wait."""
    threads, meeting = ThreadCache("test"), threading.Barrier(21)
    for _ in range(2):
        for _ in range(20):
            threads.run(lambda: meeting.wait(WAIT_SECONDS))
        meeting.wait(WAIT_SECONDS)


def test_a_task_sees_no_context_of_the_one_before(do):
    """A task sees no bound context of the task before."""
    do(lambda: _bound.set("mine"))
    assert do(_bound.get) == "nothing"


def test_a_waiting_thread_keeps_nothing_of_its_last_task(do):
    """A waiting thread keeps no reference to its last task's objects."""

    class Chart:
        pass

    chart = Chart()
    seen = weakref.ref(chart)
    do(lambda chart=chart: id(chart))
    del chart
    gc.collect()
    assert seen() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_task_that_raises_ends_only_its_thread(do):
    """A task that raises ends its thread; the next task gets a new one."""
    failed: Queue[threading.Thread] = Queue()

    def fail():
        failed.put(threading.current_thread())
        raise KeyError("x")

    do.threads.run(fail)
    thread = failed.get(timeout=WAIT_SECONDS)
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    assert do(threading.current_thread) is not thread


def test_no_thread_prevents_the_end_of_the_process(do):
    """A hanging task does not prevent the process from ending."""
    assert do(lambda: threading.current_thread().daemon)


def test_a_reserved_thread_works_when_there_are_no_more(monkeypatch):
    """A thread that was reserved does the next work; one is enough, also if it is reserved twice."""
    cache, done = ThreadCache("test"), threading.Event()
    before = threading.active_count()
    cache.reserve(1)
    cache.reserve(1)
    assert threading.active_count() == before + 1
    monkeypatch.setattr(threading.Thread, "start", None)
    cache.run(done.set)
    assert done.wait(5)


def test_without_a_free_thread_the_caller_gets_an_error(monkeypatch):
    """When no thread can be started, the caller gets an error and the task never runs."""
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
