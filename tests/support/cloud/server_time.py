"""The embedded Firestore's clock, which tests can set."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from localcloud.firestore import store


class ServerTime:
    """The time of the embedded Firestore. It continues from the instant that was set.

    Args:
        patch: The monkeypatch, undone at the end of the test.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._ahead_seconds = 0.0
        patch.setattr(store, "time", SimpleNamespace(time_ns=self._time_ns))

    def _time_ns(self) -> int:
        return time.time_ns() + round(self._ahead_seconds * 1e9)

    def now(self) -> datetime:
        """Return the current time."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead_seconds)

    def set(self, instant: datetime) -> None:
        """Set the current time to `instant`."""
        self._ahead_seconds = (instant - datetime.now(UTC)).total_seconds()


@pytest.fixture
def server_time(monkeypatch):
    """Return the settable time of the embedded Firestore."""
    return ServerTime(monkeypatch)
