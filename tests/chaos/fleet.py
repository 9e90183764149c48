"""Daemon processes that are killed, frozen, woken and replaced. Each of these disturbances is recorded."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.chaos.end_state import Disturbance
from tests.support.cloud.resources import UNLIMITED
from tests.support.process.daemons import DaemonUnderTest
from tests.support.process.shifted_clocks import Clocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.cloud.swallowing_proxy import SwallowingProxy

DEADLINE_SECONDS = 10.0
START_SECONDS = 90.0
POLL_SECONDS = 0.005


class ShiftedClocks(Clocks):
    """The clocks of one worker. The one that counts a suspend never goes back."""

    def __init__(self, folder: Path) -> None:
        self._wall = self._boot = 0.0
        super().__init__(folder)

    def add(self, *, wall: float = 0.0, boot: float = 0.0) -> None:
        """Move the clocks by these seconds."""
        self._wall += wall
        self._boot += boot
        self.shift(wall=self._wall, boot=self._boot)


class Worker(DaemonUnderTest):
    """One daemon process with its own Chart-IMG key, so that the provider's log shows which one paid.

    Attributes:
        key: That key.
        disturbances: Its disturbances.
        stalled_at: The time when it was frozen; 0 = it is not frozen.
        stopping: SIGTERM or SIGHUP was sent.
        exits: The exit codes that are no violation.
        starved: It had no memory for a while: whatever it did then is no violation of its own.
        clocks: Its clocks, if they can be shifted.
        proxies: The proxies between it and the services, if there are any.
        is_former: It is of the former version.
    """

    def __init__(
        self,
        key: str,
        environment: Mapping[str, str],
        *,
        module: str = "daemon",
        fresh: bool = False,
        python: Path | None = None,
    ) -> None:
        accounts = json.dumps([{"id": "first", "apiKey": key, **UNLIMITED}])
        environment = {**environment, "CHART_IMG_ACCOUNTS_JSON": accounts}
        super().__init__(environment, module=module, fresh=fresh, python=python)
        self.key = key
        self.is_former = python is not None
        self.exits = {0, 4}
        self.starved = False
        self.clocks: ShiftedClocks | None = None
        self.proxies: list[SwallowingProxy] = []
        self.disturbances: list[Disturbance] = []
        self.stalled_at = 0.0
        self.stopping = False
        self._hand = threading.RLock()

    def started(self) -> Self:
        """Wait until the stream is open. Many daemons can be starting at once."""
        self.wait_for_event("daemon_started", timeout_seconds=START_SECONDS)
        return self

    @property
    def alive(self) -> bool:
        """Return whether the process is running."""
        return self.process.poll() is None

    @property
    def is_disturbed(self) -> bool:
        """Return whether a disturbance can still have an effect."""
        return any(disturbance.until >= time.time() for disturbance in self.disturbances)

    def ends_within(self, seconds: float) -> bool:
        """Wait for the end of the process; return False on a timeout."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return not self.alive

    def kill_now(self) -> None:
        """Send SIGKILL and wait until the process is dead."""
        with self._hand:
            at = time.time()
            self.process.kill()
            self.process.wait(DEADLINE_SECONDS)
            self.disturbances.append(Disturbance(kind="kill", at=at, until=time.time(), daemon=self.key))

    def freeze(self) -> None:
        """Send SIGSTOP and wait until no thread of it runs."""
        with self._hand:
            self.stalled_at = time.time()
            self.signal(signal.SIGSTOP)
            _until_stopped(self.process.pid)

    def wake(self) -> None:
        """Send SIGCONT, if it is frozen."""
        with self._hand:
            if not self.stalled_at:
                return
            self.signal(signal.SIGCONT)
            self.disturbances.append(
                Disturbance(kind="freeze", at=self.stalled_at, until=time.time(), daemon=self.key)
            )
            self.stalled_at = 0.0

    def send_stop(self, number: int = signal.SIGTERM) -> None:
        """Send a stop signal; work that still runs when the drain ends can be released."""
        with self._hand:
            self.stopping = True
            self.signal(number)
            self.disturbed("stop", seconds=3600)

    def disturbed(self, kind: str, *, seconds: float) -> None:
        """Record that charts in flight can be lost from now on, for this time."""
        now = time.time()
        self.disturbances.append(Disturbance(kind=kind, at=now, until=now + seconds, daemon=self.key))

    def suspend(self, seconds: float) -> None:
        """Let a frozen process find, when it wakes, that its machine was suspended for these seconds."""
        assert self.clocks is not None
        self.clocks.add(wall=seconds, boot=seconds)

    def limit(self, resource_kind: int, soft: int) -> Callable[[], None]:
        """Limit a resource of the process from now on; return what lifts the limit."""
        before = resource.prlimit(self.process.pid, resource_kind)
        resource.prlimit(self.process.pid, resource_kind, (soft, before[1]))

        def lift() -> None:
            with suppress(ProcessLookupError):
                if self.alive:
                    resource.prlimit(self.process.pid, resource_kind, before)

        return lift


def _until_stopped(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(_state(task) not in "TZX" for task in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > deadline:
            raise AssertionError(f"process {pid} does not freeze")
        time.sleep(POLL_SECONDS)


def _state(task: Path) -> str:
    """Return the thread's one-letter state; X when it has ended."""
    try:
        return task.joinpath("stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"
