"""Stop signals, SIGTERM, SIGINT and SIGHUP: the first starts a drain, the second ends the process at once.

A separate thread waits for them with `sigwait`. Python's own signal handlers run in the main thread only, and
only when it runs Python code again. If the system delivers the signal to another thread (gRPC has many), a
main thread that waits for a queue or a lock does not notice it.

No part of a stop starts a thread: when the system has no more threads, the process must still end in order.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# No slow import here: until `block_stop_signals` was called, a stop signal ends the process.
_HANGUP_IS_IGNORED = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by `nohup`
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT} | (set() if _HANGUP_IS_IGNORED else {signal.SIGHUP}))
#: The kernel sends this when the exit timer ends. A timer of Python would need a thread.
_TIME_IS_OVER = signal.SIGALRM
#: The time for the last action before the process ends at once.
LAST_ACTION_SECONDS = 0.7


def block_stop_signals() -> None:
    """Keep stop signals pending in this thread and in all threads it starts; call it before it starts any."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS | {_TIME_IS_OVER})


def arm_exit_timer(seconds: float) -> None:
    """End the process after `seconds`, even if a thread, a lock or a full pipe hangs.

    `forward_stop_signals` must have been called. An earlier end stays.
    """
    left_seconds, _ = signal.getitimer(signal.ITIMER_REAL)
    if not left_seconds or seconds < left_seconds:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))  # 0 would stop the timer


def forward_stop_signals(
    on_first: Callable[[signal.Signals], None], *, last_action: Callable[[], None] = lambda: None
) -> None:
    """Call `on_first` in a separate thread at the first stop signal; the second ends the process.

    Args:
        on_first: Must not block and not raise.
        last_action: Called just before the second signal or the exit timer ends the process, in a thread of
            its own, which gets `LAST_ACTION_SECONDS`.
    """
    from daemon.exit import ExitCode  # noqa: PLC0415 - slow to load, see above

    block_stop_signals()
    is_ending, is_done = threading.Event(), threading.Event()

    def act_last() -> None:
        is_ending.wait()
        try:
            last_action()
        finally:
            is_done.set()

    def wait() -> None:
        awaited = STOP_SIGNALS | {_TIME_IS_OVER}
        received = signal.sigwait(awaited)
        if received != _TIME_IS_OVER:
            on_first(signal.Signals(received))
            signal.sigwait(awaited)
        is_ending.set()
        is_done.wait(LAST_ACTION_SECONDS)
        os._exit(ExitCode.DRAIN_TIMEOUT)

    threading.Thread(target=act_last, name="last-action", daemon=True).start()
    threading.Thread(target=wait, name="signals", daemon=True).start()
