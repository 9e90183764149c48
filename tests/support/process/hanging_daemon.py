"""The daemon in which one step hangs before its manifest, with shorter limits for what hangs.

The thread of the step hangs in an observer, where no stop reaches it.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

from daemon.lifecycle.library_defaults import set_library_defaults
from daemon.lifecycle.signals import block_stop_signals
from worker_chart_export.observability.observers import Observer, Stage, watched_by

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from worker_chart_export.observability.observers import About

HANGING = "tests.support.process.hanging_daemon"
#: The variable with the run whose step hangs.
HANGING_RUN = "HANGING_RUN"
#: Leases are renewed for this much longer than `STEP_TIMEOUT_SECONDS` and `DRAIN_SECONDS`.
RESERVE_SECONDS = 1.0
#: The time limit for closing a quiet stream.
CLOSE_SECONDS = 1.0

_hangs: ContextVar[bool] = ContextVar("hangs", default=False)


class Hang(Observer):
    """Hangs in the step of one run."""

    def stage(
        self, stage: Stage, about: About, carrier: Mapping[str, str]
    ) -> AbstractContextManager[object] | None:
        """Return, except before the manifest of that step."""
        del carrier
        if stage is Stage.STEP:
            _hangs.set(about["runId"] == os.environ[HANGING_RUN])
        if stage is Stage.MANIFEST and _hangs.get():
            threading.Event().wait()
        return None


if __name__ == "__main__":
    block_stop_signals()
    set_library_defaults()
    import daemon.settings.export
    from daemon.__main__ import main
    from daemon.subscription.supervisor import StreamSupervisor

    daemon.settings.export.LEDGER_RESERVE_SECONDS = RESERVE_SECONDS
    StreamSupervisor.__init__.__kwdefaults__["max_seconds"] = CLOSE_SECONDS  # type: ignore[index]
    with watched_by(Hang()):
        main()
