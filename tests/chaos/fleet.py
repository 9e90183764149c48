"""Daemon processes that are killed, frozen, woken and replaced. Each of these disturbances is recorded."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.chaos.end_state import Disturbance
from tests.support.cloud.resources import UNLIMITED
from tests.support.process.daemons import DaemonUnderTest

if TYPE_CHECKING:
    from collections.abc import Mapping

DEADLINE_SECONDS = 10.0
START_SECONDS = 90.0
POLL_SECONDS = 0.005


class Worker(DaemonUnderTest):
    """One daemon process with its own Chart-IMG key, so that the provider's log shows which one paid.

    Attributes:
        key: That key.
        disturbances: Its disturbances.
        stalled_at: The time when it was frozen; 0 = it is not frozen.
        stopping: SIGTERM was sent.
    """

    def __init__(
        self, key: str, environment: Mapping[str, str], *, module: str = "daemon", fresh: bool = False
    ) -> None:
        accounts = json.dumps([{"id": "first", "apiKey": key, **UNLIMITED}])
        super().__init__({**environment, "CHART_IMG_ACCOUNTS_JSON": accounts}, module=module, fresh=fresh)
        self.key = key
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
        """Send SIGCONT."""
        with self._hand:
            self.signal(signal.SIGCONT)
            self.disturbances.append(
                Disturbance(kind="freeze", at=self.stalled_at, until=time.time(), daemon=self.key)
            )
            self.stalled_at = 0.0

    def send_sigterm(self) -> None:
        """Send SIGTERM; work that still runs when the drain ends can be released."""
        with self._hand:
            now = time.time()
            self.stopping = True
            self.signal(signal.SIGTERM)
            self.disturbances.append(Disturbance(kind="stop", at=now, until=now + 3600, daemon=self.key))


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
