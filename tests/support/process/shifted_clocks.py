"""The daemon on clocks that a test shifts while it runs: the wall clock, and the clock that counts a suspend.

A process that was suspended finds both ahead, and the monotonic clock, by which its waits go, as it was.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import grpc._channel as grpc_calls
from google.cloud.pubsub_v1.subscriber._protocol import helper_threads

from daemon.lifecycle.signals import block_stop_signals
from worker_chart_export import timing

SHIFTED = "tests.support.process.shifted_clocks"
CLOCKS_FILE = "CLOCKS_FILE"
#: The variable that leaves the acks of Google's Pub/Sub client on the wall clock. Then the daemon counts as
#: dead this many seconds after an ack that is not sent.
CLIENT_ON_WALL_CLOCK = "CLIENT_ON_WALL_CLOCK"
#: The variable that takes the clock that counts a suspend away, as on systems without one.
NO_BOOT_CLOCK = "NO_BOOT_CLOCK"
#: The seconds to add to the wall clock, and those to add to the boot clock.
_SHIFTS = struct.Struct("dd")


class Clocks:
    """The clocks of daemons that get `environment` and run `SHIFTED`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "clocks"
        self.shift()

    @property
    def environment(self) -> dict[str, str]:
        """Return the variable by which a daemon finds its clocks."""
        return {CLOCKS_FILE: str(self._path)}

    def suspend(self, seconds: float) -> None:
        """Let the machine have been suspended for these seconds."""
        self.shift(wall=seconds, boot=seconds)

    def shift(self, *, wall: float = 0.0, boot: float = 0.0) -> None:
        """Show the true times plus these seconds from now on."""
        if not self._path.exists():
            self._path.write_bytes(bytes(_SHIFTS.size))
        with self._path.open("r+b") as file, mmap.mmap(file.fileno(), _SHIFTS.size) as shifts:
            _SHIFTS.pack_into(shifts, 0, wall, boot)


def _shift_clocks() -> None:
    """Replace the clocks of this process."""
    with Path(os.environ[CLOCKS_FILE]).open("rb") as file:
        shifts = mmap.mmap(file.fileno(), _SHIFTS.size, prot=mmap.PROT_READ)
    true_clocks = SimpleNamespace(**vars(time))
    time.time = lambda: true_clocks.time() + _SHIFTS.unpack_from(shifts)[0]
    ahead = {time.CLOCK_BOOTTIME: lambda: _SHIFTS.unpack_from(shifts)[1]}
    time.clock_gettime = lambda clock: true_clocks.clock_gettime(clock) + ahead.get(clock, float)()
    if NO_BOOT_CLOCK in os.environ:
        timing.BOOT_CLOCK = None
    grpc_calls.time = true_clocks  # gRPC's C code compares these deadlines with the true wall clock
    timing.SystemClock.now = lambda _clock: datetime.fromtimestamp(time.time(), UTC)  # type: ignore[method-assign]
    if CLIENT_ON_WALL_CLOCK in os.environ:
        helper_threads.time = SimpleNamespace(**vars(time))
        import daemon.composition  # noqa: PLC0415 - it keeps clocks

        daemon.composition.MAX_UNSENT_SECONDS = float(os.environ[CLIENT_ON_WALL_CLOCK])


if __name__ == "__main__":
    block_stop_signals()
    _shift_clocks()
    from daemon.__main__ import main

    main()
