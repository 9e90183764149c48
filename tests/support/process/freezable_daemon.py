"""The daemon with a main loop that freezes at SIGUSR1, and that counts as dead after 2 s of silence.

Only the main thread hangs, in a signal handler that does not return. All other threads continue.
"""

from __future__ import annotations

import signal
import threading

from daemon.__main__ import main
from daemon.lifecycle.library_defaults import set_library_defaults
from daemon.lifecycle.signals import block_stop_signals

FREEZE = signal.SIGUSR1
SILENT_SECONDS = 2.0


def freeze(*_signal: object) -> None:
    """Never return."""
    threading.Event().wait()


if __name__ == "__main__":
    block_stop_signals()
    signal.signal(FREEZE, freeze)
    set_library_defaults()
    import daemon.main

    daemon.main.MAIN_WITHIN_SECONDS = SILENT_SECONDS
    main()
