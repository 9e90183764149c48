"""The daemon that looks for a usable account after seconds and not after a minute."""

from __future__ import annotations

from daemon.__main__ import main
from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.lifecycle.signals import block_stop_signals
from daemon.subscription.supervisor import StreamSupervisor
from worker_chart_export.charts.chart_img import account_state, provider
from worker_chart_export.ledger import releases
from worker_chart_export.timing import Backoff

WAITING = "tests.support.process.waiting_daemon"
READ_AGAIN_SECONDS = 2.0
LONG_PAUSE_SECONDS = 2.0


if __name__ == "__main__":
    block_stop_signals()
    CircuitBreaker.__init__.__kwdefaults__["probe_seconds"] = 0.5  # type: ignore[index]
    StreamSupervisor.__init__.__kwdefaults__["long_pause_seconds"] = LONG_PAUSE_SECONDS  # type: ignore[index]
    provider.READ_AGAIN_SECONDS, provider.PROBE_EARLY_SECONDS = READ_AGAIN_SECONDS, 0.2
    account_state.FIRST_REFUSAL_SECONDS = READ_AGAIN_SECONDS
    releases.EXHAUSTED_BACKOFF = Backoff(low_seconds=0.5, first_seconds=1.0, max_seconds=1.0)
    main()
