"""The daemon with a probe of unavailable backends every 3 s and not every 15 s."""

from __future__ import annotations

from daemon.__main__ import main
from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.lifecycle.signals import block_stop_signals

PROBING = "tests.support.process.probing_daemon"
PROBE_SECONDS = 3.0


if __name__ == "__main__":
    block_stop_signals()
    CircuitBreaker.__init__.__kwdefaults__["probe_seconds"] = PROBE_SECONDS  # type: ignore[index]
    main()
