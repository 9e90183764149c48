"""The pool of renderer processes: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.charts.local_chart_samples import raw_candles, request_of
from tests.support.metric_counts import value
from tests.support.process.renderers import (
    is_running,
    is_stopped,
    page_faults,
    renderers_of,
    servers_of,
    wait_until,
)
from worker_chart_export.charts.local.in_process import InProcessRenderer
from worker_chart_export.charts.local.processes.pool import RendererPool, UnexpectedError
from worker_chart_export.charts.local.processes.renderer import PackedCandles, ProcessRenderer
from worker_chart_export.errors import Interrupted, OhlcvUnavailable, RenderFailed

SUBJECT = {"symbol": "IBM", "timeframe": "1d"}
LIMIT = 262144
#: A file that takes half a second to read.
LARGE = (
    b"["
    + b",".join(
        b'{"date":"%04d-%02d-%02dT%02d:%02d","open":1,"high":1,"low":1,"close":1}'
        % (year, month, day, hour, minute)
        for year in range(2000, 2004)
        for month in range(1, 13)
        for day in range(1, 29)
        for hour in range(24)
        for minute in (0, 15, 30, 45)
    )
    + b"]"
)


def _ends():
    return value("renderer_ends_total")


def _go_on():
    """Let the work go on."""


class Bench:
    """A pool, and the calls of a provider."""

    def __init__(self, **options):
        self.pool = RendererPool(**options)
        self._renderer = ProcessRenderer(self.pool, max_png_bytes=LIMIT)

    def load(self, raw=None, check=_go_on):
        """Return the candles of a file."""
        return self._renderer.load(raw or raw_candles(), **SUBJECT, check=check)

    def draw(self, candles, check=_go_on, **changes):
        """Return the PNG of a chart."""
        payload = request_of("ctpl_price_ma1226_vol_v1", **changes)
        return self._renderer.draw(candles, payload, **SUBJECT, check=check)[0]

    def in_thread(self, call):
        """Return a thread that makes the call, and the list of its result or error."""
        results = []

        def run():
            try:
                results.append(call())
            except Exception as error:  # noqa: BLE001 - looked at by the test
                results.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread, results


@pytest.fixture
def bench():
    """Return a function that makes a bench."""
    benches = []

    def make(**options):
        benches.append(Bench(**{"processes": 1} | options))
        return benches[-1]

    yield make
    for made in benches:
        made.pool.close()
    wait_until(lambda: not servers_of(os.getpid()), "end of all processes")


def _stopped_renderer():
    (renderer,) = renderers_of(os.getpid())
    os.kill(renderer, signal.SIGSTOP)
    wait_until(lambda: is_stopped(renderer), "stopped process")
    return renderer


def _end(renderer, number):
    """Send a signal to a stopped process, which gets it when it goes on."""
    os.kill(renderer, number)
    if number != signal.SIGKILL:
        os.kill(renderer, signal.SIGCONT)


def test_processes_draw_what_this_process_draws(bench):
    """The same bytes and facts; one process is enough for one caller."""
    made = bench(processes=4)
    assert servers_of(os.getpid()) == []
    here = InProcessRenderer(max_png_bytes=LIMIT)
    loaded = here.load(raw_candles(), **SUBJECT)
    candles = made.load()
    assert len(candles) == len(loaded)
    for theme in ("dark", "light"):
        payload = request_of("ctpl_price_ma1226_vol_v1", theme=theme)
        assert made.draw(candles, theme=theme) == here.draw(loaded, payload, **SUBJECT)[0]
    assert len(renderers_of(os.getpid())) == 1


def test_a_renderer_keeps_its_memory_for_the_next_chart(bench):
    """The kernel need not clear new pages for each chart, which would take a fifth of its time."""
    one = bench()
    candles = one.load()
    (renderer,) = renderers_of(os.getpid())
    for size in ({}, {"width": 1920, "height": 1080}):
        new = []
        for _ in range(5):
            before = page_faults(renderer)
            one.draw(candles, **size)
            new.append(page_faults(renderer) - before)
        assert min(new) < 100, new


def test_errors_of_a_chart_reach_the_caller(bench):
    """With their message and details; the process lives on."""
    made = bench()
    candles = made.load()
    bad = b'[{"date": "2024-01-01", "open": "?"}]'
    with pytest.raises(OhlcvUnavailable, match=r"has `open` '\?'") as caught:
        made.load(bad)
    assert caught.value.details == {"bar": 0, "field": "open"}
    with pytest.raises(RenderFailed, match="Tea Leaves"):
        made.draw(candles, studies=[{"name": "Tea Leaves"}])
    with pytest.raises(UnexpectedError, match="UnpicklingError: ") as unexpected:
        made.draw(PackedCandles(data=b"no pickle", count=1))
    assert unexpected.value.kind == "UnpicklingError"
    assert "in _draw" in unexpected.value.__notes__[0]
    assert len(renderers_of(os.getpid())) == 1


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_costs_a_second_try(bench, number):
    """The chart is drawn again by another process."""
    made = bench()
    candles = made.load()
    expected = made.draw(candles)
    renderer = _stopped_renderer()
    before = _ends()
    thread, results = made.in_thread(lambda: made.draw(candles))
    thread.join(0.3)
    assert thread.is_alive()
    _end(renderer, number)
    thread.join(20)
    assert results == [expected]
    assert _ends() == before + 1
    assert renderers_of(os.getpid()) != [renderer]


def test_a_process_that_ended_while_it_was_idle_costs_no_try(bench):
    """It is replaced before it gets a chart."""
    made = bench()
    candles = made.load()
    (renderer,) = renderers_of(os.getpid())
    os.kill(renderer, signal.SIGKILL)
    wait_until(lambda: not is_running(renderer), "end of the process")
    before = _ends()
    assert made.draw(candles)
    assert _ends() == before


def _signal_each_renderer(thread, number):
    """Send a signal to each renderer that is started while the thread lives; return them."""
    signalled = set()
    while thread.is_alive():
        for renderer in set(renderers_of(os.getpid())) - signalled:
            os.kill(renderer, number)
            signalled.add(renderer)
        time.sleep(0.002)
    return signalled


def test_a_chart_that_crashes_twice_fails(bench):
    """And says how. The next chart is drawn."""
    made = bench()
    candles = made.load()
    thread, results = made.in_thread(lambda: made.load(LARGE))
    # The first may have ended before it got the task. That costs no try.
    assert len(_signal_each_renderer(thread, signal.SIGSEGV)) in (2, 3)
    (error,) = results
    assert isinstance(error, RenderFailed)
    assert error.message == "The process that draws the chart was ended by SIGSEGV, 2 times."
    assert error.details == {"ends": ["was ended by SIGSEGV"] * 2}
    assert made.draw(candles)


def test_an_endless_task_fails(bench):
    """After two times its time. A stopped process stands for one that loops in native code."""
    made = bench(task_seconds=0.5)
    thread, results = made.in_thread(lambda: made.load(LARGE))
    stopped = _signal_each_renderer(thread, signal.SIGSTOP)
    (error,) = results
    assert isinstance(error, RenderFailed)
    assert error.details == {"ends": ["worked for more than 0.5 s"] * 2}
    assert len(stopped) == 2
    assert not any(is_running(renderer) for renderer in stopped)


def test_a_stop_ends_the_drawing(bench):
    """Within two seconds, whatever the process does; and the next chart is drawn."""
    made = bench()
    candles = made.load()
    renderer = _stopped_renderer()
    stopped = threading.Event()

    def check():
        if stopped.is_set():
            raise Interrupted("stop requested")

    thread, results = made.in_thread(lambda: made.draw(candles, check=check))
    thread.join(0.3)
    assert thread.is_alive()
    began = time.monotonic()
    stopped.set()
    thread.join(10)
    assert time.monotonic() - began < 2
    assert isinstance(results[0], Interrupted)
    assert not is_running(renderer)
    assert made.draw(candles)


def test_a_stop_ends_the_wait_for_a_process(bench):
    """A chart that waits for its turn notices a stop too."""
    made = bench()
    candles = made.load()
    renderer = _stopped_renderer()
    busy, _ = made.in_thread(lambda: made.draw(candles))

    def check():
        raise Interrupted("stop requested")

    with pytest.raises(Interrupted):
        made.draw(candles, check=check)
    os.kill(renderer, signal.SIGCONT)
    busy.join(20)


def test_the_end_of_the_parent_of_all_processes_costs_a_second_try(bench):
    """The kernel ends its children, also one that is stopped. A new one is started."""
    made = bench()
    candles = made.load()
    (server,) = servers_of(os.getpid())
    renderer = _stopped_renderer()
    thread, results = made.in_thread(lambda: made.draw(candles))
    thread.join(0.3)
    assert thread.is_alive()
    os.kill(server, signal.SIGKILL)
    thread.join(20)
    assert isinstance(results[0], bytes)
    assert not is_running(renderer)
    assert servers_of(os.getpid()) != [server]


def test_only_the_daemon_ends_its_processes(bench):
    """Signals to stop are not for them, and a signal to the process group does not reach them."""
    made = bench()
    candles = made.load()
    pids = [*servers_of(os.getpid()), *renderers_of(os.getpid())]
    for pid in pids:
        assert os.getpgid(pid) != os.getpgid(0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
    assert made.draw(candles)
    assert [*servers_of(os.getpid()), *renderers_of(os.getpid())] == pids


def test_processes_inherit_no_descriptor_and_no_secret(bench, monkeypatch, tmp_path):
    """Only the null device and the socket of their tasks."""
    for name in ("CHART_IMG_ACCOUNTS_JSON", "OTEL_EXPORTER_OTLP_HEADERS", "ANY_OTHER"):
        monkeypatch.setenv(name, "secret-key")
    with (tmp_path / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 - the signature of the standard library
        made = bench()
        made.load()
        (renderer,) = renderers_of(os.getpid())
        targets = [str(entry.readlink()) for entry in Path(f"/proc/{renderer}/fd").iterdir()]
    assert sorted(target.partition(":")[0] for target in targets) == ["/dev/null"] * 3 + ["socket"]
    assert b"secret-key" not in Path(f"/proc/{renderer}/environ").read_bytes()
    assert int(Path(f"/proc/{renderer}/oom_score_adj").read_text()) >= 500


def test_many_threads_share_the_processes(bench):
    """No thread is started for them, and no more processes than allowed."""
    made = bench(processes=2)
    candles = made.load()
    calls = [made.in_thread(lambda: made.draw(candles)) for _ in range(12)]
    most = 0
    while any(thread.is_alive() for thread, _ in calls):
        most = max(most, len(renderers_of(os.getpid())))
        time.sleep(0.005)
    assert len({result for _, results in calls for result in results}) == 1
    assert 1 <= most <= 2


def test_a_closed_pool_starts_no_process(bench):
    """It fails its charts."""
    made = bench()
    candles = made.load()
    made.pool.close()
    with pytest.raises(RenderFailed, match="The worker stops"):
        made.draw(candles)
    assert servers_of(os.getpid()) == []


def test_the_daemon_does_not_load_the_drawing_libraries():
    """The provider that draws in processes needs none of them: `real` mode with a fallback stays small."""
    script = (
        "import sys\n"
        "from worker_chart_export.charts.local.processes.pool import RendererPool\n"
        "from worker_chart_export.charts.local.processes.renderer import ProcessRenderer\n"
        "from worker_chart_export.charts.local.provider import LocalProvider\n"
        "LocalProvider(ProcessRenderer(RendererPool(processes=2), max_png_bytes=1000))\n"
        "sys.exit(bool({'numpy', 'PIL', 'aggdraw'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
