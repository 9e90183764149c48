"""SIGTERM and SIGINT: the first asks for a drain, the second ends the process at once.

A thread of its own waits for them with `sigwait`. Python's own signal handlers run in the main thread only,
and only once it gets to run Python code again: when the system hands the signal to another thread (gRPC has
many), a main thread that waits for a queue or a lock never learns of it.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from daemon.exit import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


def block_stop_signals() -> None:
    """Keep stop signals pending, for this thread and all it starts; call it before any thread is started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def forward_stop_signals(on_first: Callable[[signal.Signals], None]) -> None:
    """Call `on_first` from a thread of its own at the first stop signal; the second ends the process."""
    block_stop_signals()
    threading.Thread(target=_wait_twice, args=(on_first,), name="signals", daemon=True).start()


def _wait_twice(on_first: Callable[[signal.Signals], None]) -> None:
    on_first(signal.Signals(signal.sigwait(STOP_SIGNALS)))
    signal.sigwait(STOP_SIGNALS)
    os._exit(ExitCode.DRAIN_TIMEOUT)
