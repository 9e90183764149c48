"""The daemon that looks at the pause of the fleet every 0.5 s, and closes its stream after 2 s of a pause."""

from __future__ import annotations

from daemon.__main__ import main
from daemon.handling.circuit_breaker import CircuitBreaker
from daemon.handling.fleet_member import FleetMember
from daemon.lifecycle.signals import block_stop_signals
from daemon.subscription.supervisor import StreamSupervisor

FLEET = "tests.support.process.fleet_daemon"
LOOK_SECONDS = 0.5
LONG_PAUSE_SECONDS = 2.0


if __name__ == "__main__":
    block_stop_signals()
    CircuitBreaker.__init__.__kwdefaults__["probe_seconds"] = 1.0  # type: ignore[index]
    FleetMember.__init__.__kwdefaults__["look_seconds"] = LOOK_SECONDS  # type: ignore[index]
    StreamSupervisor.__init__.__kwdefaults__["long_pause_seconds"] = LONG_PAUSE_SECONDS  # type: ignore[index]
    main()
