"""The daemons of a storm: no two alike. They differ in settings, clocks, connections and versions."""

from __future__ import annotations

import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from tests.chaos.fleet import ShiftedClocks
from tests.support.cloud.swallowing_proxy import SwallowingProxy
from tests.support.process.shifted_clocks import SHIFTED

if TYPE_CHECKING:
    from types import TracebackType

    from tests.chaos.disturbances.stage import Stage
    from tests.chaos.fleet import Worker

DAEMONS = 3
#: Settings that daemons on one subscription may have differently.
SETTINGS = {
    "WORKER_CONCURRENCY": ("1", "6", "12"),
    "REQUEST_CONCURRENCY": ("1", "4"),
    "LEASE_SECONDS": ("6", "9", "15"),
    "CLOCK_SKEW_SECONDS": ("1", "2"),
    "RESCUE_INTERVAL_SECONDS": ("1", "2", "5"),
    "ACK_EXTENSION_SECONDS": ("10", "15", "20"),
    "STEP_TIMEOUT_SECONDS": ("60", "120"),
    "DRAIN_SECONDS": ("3", "10"),
}
#: The variables that name services, and the start of their addresses.
SERVICES = {
    "PUBSUB_EMULATOR_HOST": "",
    "FIRESTORE_EMULATOR_HOST": "",
    "STORAGE_EMULATOR_HOST": "http://",
    "CHART_IMG_BASE_URL": "http://",
}
WITH_CLOCKS, BEHIND_PROXIES = 0.5, 0.4
#: A daemon that can't start because its subscription is missing or forbidden is started again at leisure.
AGAIN = 0.1


class Crew:
    """Keep so many daemons at work.

    Args:
        stage: The stage of the storm.
        former: The interpreter of the former version: one daemon runs it. None: none does.
    """

    def __init__(self, stage: Stage, *, former: Path | None = None) -> None:
        self._stage = stage
        self._former = former
        self._folder = TemporaryDirectory()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._stage.world.workers:
            _close_proxies(worker)
        self._folder.cleanup()

    @property
    def has_former(self) -> bool:
        """Return whether one daemon is to be of the former version."""
        return self._former is not None

    def upgrade(self) -> None:
        """Stop the daemon of the former version by SIGTERM, and wait for its end."""
        self._former = None
        for worker in self._stage.world.workers:
            if worker.is_former and worker.alive:
                if worker.stalled_at:
                    worker.wake()
                worker.send_stop()
                worker.wait()

    def keep_at_once(self) -> None:
        """Start daemons in place of those that have ended, also while the subscription is missing."""
        self.keep(at_once=True)

    def keep(self, *, at_once: bool = False) -> None:
        """Start daemons in place of those that have ended."""
        for worker in self._stage.world.workers:
            if not worker.alive:
                _close_proxies(worker)
        working = [worker for worker in self._stage.world.workers if worker.alive and not worker.stopping]
        for _ in range(DAEMONS - sum(not worker.is_former for worker in working)):
            if at_once or self._may_start():
                self._start()
        has_former = self._former is None or any(worker.is_former for worker in working)
        if not has_former and (at_once or self._may_start()):
            self._allow_refusals(self._stage.world.worker(python=self._former))

    def _may_start(self) -> bool:
        return not self._stage.refuses or self._stage.random.random() < AGAIN

    def _start(self) -> None:
        random, world = self._stage.random, self._stage.world
        settings = {name: random.choice(values) for name, values in SETTINGS.items()}
        proxies: list[SwallowingProxy] = []
        if random.random() < BEHIND_PROXIES:
            for name, start in SERVICES.items():
                proxies.append(SwallowingProxy(world.deployment.settings()[name].removeprefix(start)))
                settings[name] = f"{start}{proxies[-1].address}"
        clocks = None
        if random.random() < WITH_CLOCKS:
            folder = Path(self._folder.name, secrets.token_hex(4))
            folder.mkdir()
            clocks = ShiftedClocks(folder)
            settings |= clocks.environment
        worker = world.worker(module=SHIFTED if clocks else "daemon", **settings)
        worker.proxies, worker.clocks = proxies, clocks
        self._allow_refusals(worker)

    def _allow_refusals(self, worker: Worker) -> None:
        if self._stage.refuses:
            worker.exits.add(3)


def _close_proxies(worker: Worker) -> None:
    for proxy in worker.proxies:
        proxy.__exit__()
    worker.proxies = []
