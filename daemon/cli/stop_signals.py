"""Let a command that changes many things end between two of them, so that it can say what it has done."""

from __future__ import annotations

import signal
from typing import Any, Self

from daemon.lifecycle.signals import STOP_SIGNALS


class StopSignals:
    """Notes a stop signal, which ends the command after the current call; a second one ends it at once.

    Use it in the main thread.
    """

    def __init__(self) -> None:
        self._number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def came(self) -> bool:
        """Whether a signal came."""
        return bool(self._number)

    def check(self) -> None:
        """End the command if a signal came.

        Raises:
            SystemExit: With the exit code that a shell gives for the signal.
        """
        if self._number:
            raise SystemExit(128 + self._number)

    def _note(self, number: int, _frame: object) -> None:
        if self._number:
            raise SystemExit(128 + number)
        self._number = number
