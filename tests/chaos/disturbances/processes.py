"""Disturbances of one daemon: signals, its clocks, its descriptors, its memory, its connections."""

from __future__ import annotations

import resource
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.disturbances.stage import Stage
    from tests.chaos.fleet import Worker

HOUR_SECONDS = 3600.0
#: How long charts in flight can be lost after a resource is there again, or connections have fallen silent.
AFTERWARDS_SECONDS = 60.0
#: Enough for what a process is doing, and too little for what it begins.
MORE_MEMORY_BYTES = 1024 * 1024


def kill(stage: Stage) -> None:
    """Kill a daemon."""
    stage.strike("kills", lambda worker: worker.kill_now())


def stop(stage: Stage) -> None:
    """Send SIGTERM."""
    stage.strike("SIGTERMs", lambda worker: worker.send_stop())


def hang_up(stage: Stage) -> None:
    """Send SIGHUP. Started by `nohup`, daemons ignore it."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        stage.strike("SIGHUPs", lambda worker: worker.send_stop(signal.SIGHUP), fit=_is_present)


def freeze(stage: Stage) -> None:
    """Stop a daemon for less or more than its lease."""

    def act(worker: Worker) -> None:
        worker.freeze()
        stage.later(stage.random.uniform(0.5, 20), worker.wake)

    stage.strike("freezes", act)


def suspend(stage: Stage) -> None:
    """Suspend the machine of a daemon for up to an hour; to all others it takes a few seconds."""

    def act(worker: Worker) -> None:
        worker.freeze()
        worker.suspend(stage.random.uniform(10, HOUR_SECONDS))
        stage.later(stage.random.uniform(0.5, 5), worker.wake)

    stage.strike("suspends", act, fit=lambda worker: worker.clocks)


def set_clock(stage: Stage) -> None:
    """Set the wall clock of a daemon back or forth by up to an hour."""

    def act(worker: Worker) -> None:
        assert worker.clocks is not None
        worker.clocks.add(wall=stage.random.uniform(-HOUR_SECONDS, HOUR_SECONDS))

    stage.strike("wall clocks set", act, fit=lambda worker: worker.clocks)


def use_up_descriptors(stage: Stage) -> None:
    """Let a daemon open no file and no connection for a while."""
    stage.strike(
        "descriptors used up", partial(_use_up, stage, resource.RLIMIT_NOFILE, lambda _: 3), fit=_is_present
    )


def use_up_memory(stage: Stage) -> None:
    """Give a daemon no more memory for a while."""

    def act(worker: Worker) -> None:
        worker.starved = True
        _use_up(stage, resource.RLIMIT_AS, _memory, worker)

    stage.strike("memory used up", act, fit=_is_present)


def _use_up(stage: Stage, kind: int, soft: Callable[[Worker], int], worker: Worker) -> None:
    seconds = stage.random.uniform(0.5, 6)
    worker.disturbed("resources", seconds=seconds + AFTERWARDS_SECONDS)
    stage.later(seconds, worker.limit(kind, soft(worker)))


def _memory(worker: Worker) -> int:
    pages = int(Path(f"/proc/{worker.process.pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize() + MORE_MEMORY_BYTES


def half_open(stage: Stage) -> None:
    """Let connections of a daemon fall silent: they stay open, take everything and answer nothing."""

    def act(worker: Worker) -> None:
        worker.disturbed("half-open", seconds=2 * AFTERWARDS_SECONDS)
        for proxy in stage.random.sample(worker.proxies, stage.random.randint(1, len(worker.proxies))):
            proxy.swallow()

    stage.strike("half-open connections", act, fit=lambda worker: worker.proxies)


def _is_present(worker: Worker) -> bool:
    """Return whether a daemon is of the version under test: the former one can't bear everything."""
    return not worker.is_former
