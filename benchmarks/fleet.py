"""Tables of the worker without the floor: `local` steps, and many daemons on one subscription."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.cloud import open_cloud
from benchmarks.processes import Measured
from benchmarks.report import Table, median_and_range
from benchmarks.throughput import WORKER, pace

if TYPE_CHECKING:
    from benchmarks.cloud import BenchCloud, Control

DAEMONS = (1, 2, 4)
RENDERERS = (1, 2)
THREADS, STEPS_A_DAEMON = 8, 120
#: The warm-up reads templates and opens the channels of each daemon.
WARM_UP_STEPS = 40


def local_steps(rounds: int, *, steps: int = STEPS_A_DAEMON) -> Table:
    """Measure steps whose charts the worker draws itself."""
    table = Table(
        title="Steps of 3 charts drawn by the worker (`CHARTS_API_MODE=local`), 8 threads",
        description="The processor time is that of the daemon, without the renderer processes.",
        columns=("renderer processes", "steps/s", "charts/s", "CPU ms in the daemon"),
    )
    with open_cloud(official=False) as (cloud, _):
        for processes in RENDERERS:
            settings = {"CHARTS_API_MODE": "local", "RENDER_PROCESSES": str(processes)}
            paces = [
                pace(cloud, WORKER, threads=THREADS, steps=steps, settings=settings) for _ in range(rounds)
            ]
            speeds = [one.steps_per_second for one in paces]
            table.rows.append(
                [
                    str(processes),
                    median_and_range(speeds),
                    median_and_range([3 * speed for speed in speeds]),
                    median_and_range([one.cpu_ms_per_step for one in paces]),
                ]
            )
    return table


def many_daemons(rounds: int, *, steps: int = STEPS_A_DAEMON) -> Table:
    """Measure what each further daemon on the same subscription adds."""
    table = Table(
        title="Many daemons on one subscription, 8 threads each, provider 300 ms",
        description="Runs of one step of 3 charts. The processor time of the cloud says when the cloud, and "
        "not the daemons, is the limit: it can use about one core.",
        columns=("daemons", "steps/s", "of one daemon", "daemons' CPU ms", "cloud's CPU ms", "cloud, cores"),
    )
    with open_cloud(official=False) as (cloud, control):
        control.delay_charts(0.3)
        one = 0.0
        for daemons in DAEMONS:
            taken = [_fleet_pace(cloud, control, daemons, steps) for _ in range(rounds)]
            speeds = [speed for speed, _, _ in taken]
            one = one or statistics.median(speeds)
            table.rows.append(
                [
                    str(daemons),
                    median_and_range(speeds),
                    f"{statistics.median(speeds) / one:.2f}",
                    median_and_range([own for _, own, _ in taken]),
                    median_and_range([cloud_ms for _, _, cloud_ms in taken]),
                    median_and_range([speed * cloud_ms / 1000 for speed, _, cloud_ms in taken], 2),
                ]
            )
    return table


def _fleet_pace(
    cloud: BenchCloud, control: Control, daemons: int, a_daemon: int
) -> tuple[float, float, float]:
    """Return the steps a second, and the CPU ms a step of all daemons and of the cloud.

    Raises:
        RuntimeError: A step did not succeed.
    """
    steps = daemons * a_daemon
    warm_up, ready = cloud.put_runs(daemons * WARM_UP_STEPS), cloud.put_runs(steps)
    with cloud.queue() as queue, contextlib.ExitStack() as running:
        settings = cloud.settings(queue, WORKER_CONCURRENCY=str(THREADS))
        processes = [running.enter_context(Measured(WORKER, settings)) for _ in range(daemons)]
        for process in processes:
            process.wait_for("daemon_started")
        queue.publish(warm_up)
        _settle(processes, len(warm_up.steps))
        own, used = sum(process.cpu_seconds() for process in processes), control.cpu_seconds()
        started = time.monotonic()
        queue.publish(ready)
        _settle(processes, len(warm_up.steps) + steps)
        seconds = time.monotonic() - started
        own = sum(process.cpu_seconds() for process in processes) - own
        used = control.cpu_seconds() - used
        for process in processes:
            process.stop()
    if cloud.statuses(ready) != {"SUCCEEDED"}:
        raise RuntimeError(f"statuses {cloud.statuses(ready)}")
    return steps / seconds, 1000 * own / steps, 1000 * used / steps


def _settle(processes: list[Measured], count: int) -> None:
    """Wait until all daemons together have settled so many messages.

    Raises:
        TimeoutError: They settled fewer.
    """
    until = time.monotonic() + 600
    while sum(process.count("message_settled") for process in processes) < count:
        if time.monotonic() > until:
            raise TimeoutError(f"fewer than {count} messages were settled")
        time.sleep(0.01)
