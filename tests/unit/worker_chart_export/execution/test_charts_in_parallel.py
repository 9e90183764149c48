"""Charts made in parallel: what happens when the step's time ends."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref

import pytest

from tests.support.fakes import NOON, HandClock, scope_of
from worker_chart_export.concurrency import parallel
from worker_chart_export.concurrency.cancel_scope import CancelScope
from worker_chart_export.concurrency.parallel import ThreadCache
from worker_chart_export.concurrency.single_flight import LoadOnce
from worker_chart_export.errors import (
    BackendUnavailable,
    Interrupted,
    LeaseLost,
    OhlcvUnavailable,
    StepTimedOut,
)
from worker_chart_export.execution.chart_maker import make_in_parallel
from worker_chart_export.outputs.manifest import ManifestFailure, ManifestItem
from worker_chart_export.timing import SystemClock


def _item(template_id):
    return ManifestItem(
        template_id=template_id,
        kind="k",
        png_uri="gs://b/x.png",
        generated_at=NOON,
        meta={"provider": "mock"},
    )


class HangingChart:
    """A chart function that hangs until released, then checks its scope as a paid call does."""

    def __init__(self, scope):
        self.scope = scope
        self.release = threading.Event()
        self.error = None
        self.ended = threading.Event()

    def __call__(self, template_id):
        """Hang, check the scope, and make the chart."""
        try:
            assert self.release.wait(20)
            self.scope.check()
        except StepTimedOut as error:
            self.error = error
            raise
        finally:
            self.ended.set()
        return _item(template_id)


def test_a_chart_that_finishes_late_finds_its_budget_stopped():
    """A late chart finds its scope stopped, even on a clock that stands."""
    scope = CancelScope(seconds=0.2, clock=HandClock())
    chart = HangingChart(scope)
    (result,) = make_in_parallel(chart, ["ctpl_a"], threads=1, scope=scope)
    assert isinstance(result, ManifestFailure)
    chart.release.set()
    assert chart.ended.wait(10)
    assert str(chart.error) == "The step's time ended before this chart was made."


def test_the_budget_is_stopped_also_when_all_charts_came_in_time():
    """The scope is also stopped when all charts came in time, so that no work starts in it."""
    scope = scope_of()
    assert make_in_parallel(_item, ["a", "b"], threads=2, scope=scope) == [_item("a"), _item("b")]
    with pytest.raises(StepTimedOut):
        scope.check_stopped()


def test_the_budget_is_stopped_also_when_a_chart_ends_the_step():
    """When a chart ends the step, the scope is stopped and no other chart is paid for."""
    scope = scope_of()

    def broken(_template_id):
        raise KeyError("x")

    with pytest.raises(KeyError):
        make_in_parallel(broken, ["a"], threads=1, scope=scope)
    with pytest.raises(StepTimedOut):
        scope.check_stopped()


def test_what_stopped_the_step_first_stays():
    """The first stop error stays: an interruption does not become a timeout."""
    scope = scope_of()
    scope.stop(Interrupted("shutdown"))
    with pytest.raises(Interrupted):
        make_in_parallel(_item, ["a"], threads=1, scope=scope)
    with pytest.raises(Interrupted):
        scope.check_stopped()


@pytest.mark.parametrize("ignores_stop", [True, False])
def test_a_stop_ends_within_two_seconds(ignores_stop):
    """A stop ends within two seconds, even when a chart hangs."""
    scope, hanging, release = scope_of(60), threading.Semaphore(0), threading.Event()

    def hang(template_id):
        hanging.release()
        if not ignores_stop:
            scope.sleep(60)
        release.wait(20)
        return _item(template_id)

    def stop():
        for _ in range(2):
            assert hanging.acquire(timeout=10)
        stopped.append(time.monotonic())
        scope.stop(LeaseLost("taken"))

    stopped = []
    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(LeaseLost):
        make_in_parallel(hang, ["a", "b", "c"], threads=2, scope=scope)
    assert time.monotonic() - stopped[0] < 2
    release.set()
    stopper.join()


def test_a_guard_that_fails_in_one_chart_ends_the_others_too():
    """A guard that fails in one chart's check ends the other charts too."""
    parent, release = scope_of(60), threading.Event()
    lost = threading.Event()

    def guard():
        if lost.is_set():
            raise LeaseLost("past its time")

    parent.guard(guard)
    scope = parent.child(59)

    def make(template_id):
        if template_id == "hangs":
            release.wait(20)
        lost.set()
        scope.check()
        return _item(template_id)

    started = time.monotonic()
    with pytest.raises(LeaseLost):
        make_in_parallel(make, ["hangs", "asks"], threads=2, scope=scope)
    assert time.monotonic() - started < 2
    release.set()
    with pytest.raises(LeaseLost):
        parent.check()


@pytest.mark.parametrize("had", [0, 1])
def test_with_too_few_threads_the_first_makes_all_charts(monkeypatch, had):
    """With too few threads the first one makes all charts; with none the caller does."""
    started = []

    def start(thread):
        if len(started) == had:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        plainly(thread)

    plainly = threading.Thread.start
    monkeypatch.setattr(parallel, "_threads", ThreadCache("chart"))
    monkeypatch.setattr(threading.Thread, "start", start)
    results = make_in_parallel(_item, ["a", "b", "c"], threads=2, scope=scope_of())
    assert results == [_item("a"), _item("b"), _item("c")]


def test_the_data_of_a_failed_chart_is_freed():
    """A failed chart's data is freed at once and not at the next garbage collection."""

    class Picture:
        pass

    def fail(_template_id):
        picture = Picture()
        seen.append(weakref.ref(picture))
        raise OhlcvUnavailable("x")

    seen = []
    gc.disable()
    try:
        make_in_parallel(fail, ["a"], threads=1, scope=scope_of())
        until = time.monotonic() + 10
        while seen[0]() is not None and time.monotonic() < until:
            time.sleep(0.01)  # the thread comes back to wait for the next
        assert seen[0]() is None
    finally:
        gc.enable()


class TestLoadOnce:
    """A step's candles are read and parsed once."""

    def test_a_second_load_returns_the_first_result(self):
        """A second call returns the first result without a read or a parse, also when that result is None."""
        reads, parses = [], []
        candles = LoadOnce(lambda: reads.append(None) or b"[]")
        assert [candles.load(parses.append), candles.load(parses.append)] == [None, None]
        assert (reads, parses) == ([None], [b"[]"])

    def test_the_bytes_are_not_kept(self):
        """After the parse, also after one that fails, the bytes are freed."""

        class Content(bytearray):
            pass

        def refuse(_content):
            raise OhlcvUnavailable("bad")

        for parse in (len, refuse):
            contents = []

            def read(contents=contents):
                content = Content(b"x")
                contents.append(weakref.ref(content))
                return content

            candles = LoadOnce(read)
            gc.disable()
            try:
                with contextlib.suppress(OhlcvUnavailable):
                    candles.load(parse)
                assert contents[0]() is None
            finally:
                gc.enable()

    def test_an_outage_is_raised_whole_in_every_call(self):
        """An error of the read that is no failure of a request keeps its attributes."""

        def read():
            raise BackendUnavailable("storage", "it is slow")

        candles = LoadOnce(read)
        for _ in range(3):
            with pytest.raises(BackendUnavailable, match="storage is unavailable: it is slow") as caught:
                candles.load(len)
            assert caught.value.backend == "storage"

    def test_a_second_load_raises_the_first_error(self):
        """An error of the read is raised in every call."""
        reads = []

        def read():
            reads.append(None)
            raise OhlcvUnavailable("no candles")

        candles = LoadOnce(read)
        for _ in range(2):
            with pytest.raises(OhlcvUnavailable, match="no candles"):
                candles.load(len)
        assert len(reads) == 1

    def test_an_unexpected_error_of_the_parse_is_raised_in_every_call(self):
        """A second read of a large file would wait for the permit that the step itself holds."""
        reads = []

        def parse(_content):
            raise MemoryError("no room")

        candles = LoadOnce(lambda: reads.append(None) or b"[]")
        for _ in range(2):
            with pytest.raises(MemoryError, match="no room"):
                candles.load(parse)
        assert len(reads) == 1


def test_the_data_of_a_failed_chart_is_freed_when_a_later_chart_hangs():
    """A failed chart leaves no data in memory, even when a later chart hangs and others never start."""

    class Picture:
        pass

    scope, pictures = CancelScope(seconds=0.2, clock=SystemClock()), []
    hanging = HangingChart(scope)

    def make(template_id):
        if template_id != "ctpl_failed":
            return hanging(template_id)
        picture = Picture()
        pictures.append(weakref.ref(picture))
        raise OhlcvUnavailable("There are no candles.")

    gc.disable()
    try:
        make_in_parallel(make, ["ctpl_failed", "ctpl_hangs", "ctpl_c", "ctpl_d"], threads=1, scope=scope)
        hanging.release.set()
        deadline = time.monotonic() + 10
        while pictures[0]() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert pictures[0]() is None
    finally:
        gc.enable()
