"""The figures of a load: what its daemons used, from the system; what they did, from their logs."""

from __future__ import annotations

import resource
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from benchmarks.processes import cpu_seconds_of, descriptors_of, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.world import World

SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The processor time so far.

    Attributes:
        daemons_seconds: Processor time of all daemons.
        cloud_seconds: Processor time of this process: the cloud, and the reader of the daemons' logs.
    """

    daemons_seconds: float
    cloud_seconds: float

    def milliseconds_since(self, before: Usage, *, steps: int) -> tuple[str, str]:
        """Return the milliseconds a step of the daemons and of the cloud, as text."""
        daemons, cloud = (
            self.daemons_seconds - before.daemons_seconds,
            self.cloud_seconds - before.cloud_seconds,
        )
        return f"{1000 * daemons / steps:.1f}", f"{1000 * cloud / steps:.1f}"


def usage(world: World) -> Usage:
    """Read the processor times."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(
        daemons_seconds=sum(cpu_seconds_of(worker.process.pid) for worker in world.workers),
        cloud_seconds=own.ru_utime + own.ru_stime,
    )


class Watch:
    """Reads descriptors and threads of all daemons twice a second, and keeps the highest of one daemon.

    Attributes:
        descriptors: The most of any daemon so far.
        threads: The same of threads.
    """

    def __init__(self, world: World) -> None:
        self.descriptors = self.threads = 0
        self._world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop reading, before a daemon ends."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.descriptors = max(self.descriptors, *descriptors(self._world))
            self.threads = max(self.threads, *numbers(self._world, "Threads"))


def numbers(world: World, name: str) -> list[int]:
    """Return a number of each daemon's status; see `status_of`."""
    return [status_of(worker.process.pid, name) for worker in world.workers]


def descriptors(world: World) -> list[int]:
    """Return how many file descriptors each daemon has open."""
    return [descriptors_of(worker.process.pid) for worker in world.workers]


def leases_lost(world: World) -> int:
    """Return how many steps lost their lease or were taken over."""
    events = Counter(line.get("event") for line in _lines(world))
    return events["lease_lost"] + events["lease_taken_over"]


def redelivered(world: World) -> int:
    """Return how many deliveries were not the first of their message."""
    received = [line["messageId"] for line in _lines(world) if line.get("event") == "message_received"]
    return len(received) - len(set(received))


def oldest_seconds(world: World) -> float:
    """Return the longest time from the publishing of a message to its last settlement."""
    published, settled = {}, {}
    for line in _lines(world):
        if line.get("event") == "message_received":
            published[line["messageId"]] = _seconds(line["publishTime"])
        elif line.get("event") == "message_settled":
            at = _seconds(line["time"])
            settled[line["messageId"]] = max(at, settled.get(line["messageId"], at))
    return max((at - published[message_id] for message_id, at in settled.items()), default=0.0)


def ends(world: World) -> str:
    """Return how many steps have which status."""
    runs = world.read_runs()
    found = Counter(runs[run_id]["steps"][step_id]["status"] for run_id, step_id in world.expected)
    return ", ".join(f"{count} {status}" for status, count in found.most_common())


def _lines(world: World) -> Iterator[dict[str, Any]]:
    for worker in world.workers:
        yield from list(worker.events)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
