"""Stop signals, SIGTERM and SIGINT: the first starts a drain, the second ends the process at once.

A separate thread waits for them with `sigwait`. Python's own signal handlers run in the main thread only, and
only when it runs Python code again. If the system delivers the signal to another thread (gRPC has many), a
main thread that waits for a queue or a lock does not notice it.
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
    """Keep stop signals pending in this thread and in all threads it starts; call it before it starts any."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def forward_stop_signals(on_first: Callable[[signal.Signals], None]) -> None:
    """Call `on_first` in a separate thread at the first stop signal; the second ends the process."""
    block_stop_signals()

    def wait() -> None:
        on_first(signal.Signals(signal.sigwait(STOP_SIGNALS)))
        signal.sigwait(STOP_SIGNALS)
        os._exit(ExitCode.DRAIN_TIMEOUT)

    threading.Thread(target=wait, name="signals", daemon=True).start()
