"""The daemon with short spans: a probe every 3 s, a long pause after 4 s, a longest lease of 7 s."""

from __future__ import annotations

import time
from functools import partialmethod
from typing import TYPE_CHECKING

from google.api_core.bidi import ResumableBidiRpc

from daemon.__main__ import main
from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.lifecycle.signals import block_stop_signals
from daemon.settings import export
from daemon.subscription.supervisor import StreamSupervisor
from tests.support.process.probing_daemon import PROBE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

HASTY = "tests.support.process.hasty_daemon"
LONG_PAUSE_SECONDS = 4.0
#: The settings with which the longest lease of a message is `MAX_LEASE_SECONDS`.
SPANS = {"STEP_TIMEOUT_SECONDS": "4", "DRAIN_SECONDS": "3"}
#: Shorter than the first pause of the thread that extends ack deadlines, which then gives the message up.
MAX_LEASE_SECONDS = 7


def _half_close_first(rpc: ResumableBidiRpc, close: Callable[[ResumableBidiRpc], None]) -> None:
    """End the requests of a stream before it is cancelled.

    Google's Pub/Sub emulator goes on delivering to a cancelled stream, every ten seconds, and counts that.
    """
    rpc._should_recover = lambda _error: False
    rpc._request_queue.put(None)
    time.sleep(0.5)
    close(rpc)


if __name__ == "__main__":
    block_stop_signals()
    CircuitBreaker.__init__.__kwdefaults__["probe_seconds"] = PROBE_SECONDS  # type: ignore[index]
    StreamSupervisor.__init__.__kwdefaults__["long_pause_seconds"] = LONG_PAUSE_SECONDS  # type: ignore[index]
    export.LEDGER_RESERVE_SECONDS = 0
    ResumableBidiRpc.close = partialmethod(_half_close_first, close=ResumableBidiRpc.close)  # type: ignore[method-assign]
    main()
