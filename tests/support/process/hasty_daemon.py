"""The daemon with short spans: a probe every 3 s, a long pause after 4 s, a longest lease of 8 s."""

from __future__ import annotations

from daemon.__main__ import main
from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.lifecycle.signals import block_stop_signals
from daemon.settings import export
from daemon.subscription.supervisor import StreamSupervisor
from tests.support.process.probing_daemon import PROBE_SECONDS

HASTY = "tests.support.process.hasty_daemon"
LONG_PAUSE_SECONDS = 4.0
#: The settings with which the longest lease of a message is `MAX_LEASE_SECONDS`.
SPANS = {"STEP_TIMEOUT_SECONDS": "5", "DRAIN_SECONDS": "3"}
MAX_LEASE_SECONDS = 8


if __name__ == "__main__":
    block_stop_signals()
    CircuitBreaker.__init__.__kwdefaults__["probe_seconds"] = PROBE_SECONDS  # type: ignore[index]
    StreamSupervisor.__init__.__kwdefaults__["long_pause_seconds"] = LONG_PAUSE_SECONDS  # type: ignore[index]
    export.LEDGER_RESERVE_SECONDS = 0
    main()
