"""Work off one load with real daemons and take its figures."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from localcloud import LocalCloud
from tests.chaos.gathering import finish
from tests.chaos.world import world_on
from tests.load import figures
from tests.load.loads import limit, messages_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.world import World
    from tests.load.loads import Load

LONGEST_SECONDS = 3600.0
COLUMNS = (
    "load",
    "daemons x threads",
    "steps",
    "messages",
    "seconds",
    "steps/s",
    "daemons' CPU ms a step",
    "cloud's CPU ms a step",
    "peak MiB of a daemon",
    "descriptors",
    "threads",
    "oldest message, s",
    "leases lost",
    "redeliveries",
    "ended as",
)


@contextmanager
def daemons_of(load: Load) -> Iterator[World]:
    """Start a cloud and the daemons of a load."""
    with LocalCloud.start(project="load") as cloud, world_on(cloud, **load.settings()) as world:
        for worker in [world.worker(fresh=True) for _ in range(load.daemons)]:
            worker.started()
        yield world


def work(name: str, load: Load) -> tuple[list[str], str]:
    """Work off one load; return its row of the table, and what was lost, done twice or left RUNNING."""
    with daemons_of(load) as world, figures.Watch(world) as watch:
        messages, steps = messages_of(world, load), load.runs * load.steps
        limit(world, load)
        before, began = figures.usage(world), time.monotonic()
        world.deliver(messages)
        world.holds_within(lambda: not world.unacked(), LONGEST_SECONDS)
        seconds, used = time.monotonic() - began, figures.usage(world)
        peak = max(figures.numbers(world, "VmHWM")) / 1024
        watch.stop()
        violations = _violations(world)
        row = [
            name,
            f"{load.daemons} x {load.threads}",
            str(steps),
            str(len(messages)),
            f"{seconds:.0f}",
            f"{steps / seconds:.1f}",
            *used.milliseconds_since(before, steps=steps),
            f"{peak:.0f}",
            str(watch.descriptors),
            str(watch.threads),
            f"{figures.oldest_seconds(world):.0f}",
            str(figures.leases_lost(world)),
            str(figures.redelivered(world)),
            figures.ends(world),
        ]
        return row, violations


def _violations(world: World) -> str:
    try:
        check(world)
    except AssertionError as error:
        return str(error)
    return ""


def check(world: World) -> None:
    """Stop the daemons and check the invariants.

    Raises:
        AssertionError: One does not hold, or the log of commits is too short to tell.
    """
    commits = world.cloud.firestore.commits
    assert len(commits) < (commits.maxlen or 0), "the log of commits has lost its oldest entries"
    finish(world)
